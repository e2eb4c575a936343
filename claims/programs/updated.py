"""What training changes: whether all parameters are updated, and whether as under DDP."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.engines.native.adapter import NativeEngine
from claims.programs import engines
from claims.programs.owners import own_shards


def all_stages(rank: int, ranks: int, names: Sequence[str], steps: int) -> dict[str, dict[str, Any]]:
    """After some steps of each stage: elements that changed, distance to stage 0, and elements that this rank updates.

    ``partial`` is what ZeRO is claimed to do: each rank updates its own parameters and sends them to no other rank.
    """
    start = engines.flat(engines.model())
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        ddp = start
        for stage in range(4):
            trained = engines.engine(name, stage, rank, ranks)
            engines.train(trained, range(steps), rank)
            weights = engines.weights(trained)
            ddp = weights if stage == 0 else ddp
            updated = sum(stop - start for _, start, stop in own_shards(trained))
            results[f"{name} {stage}"] = compared(weights, start, ddp) | {"updated": updated}
            if name == "native" and stage == 0:
                results["partial"] = compared(partial(rank, ranks, steps), start, ddp)
    return results


def compared(weights: Tensor, start: Tensor, ddp: Tensor) -> dict[str, Any]:
    difference = (weights.double() - ddp.double()).norm() / ddp.double().norm()
    return {
        "elements": weights.numel(),
        "changed": int((weights != start).sum()),
        "distance": float(difference),
        "same bits": bool(torch.equal(weights, ddp)),
    }


def partial(rank: int, ranks: int, steps: int) -> Tensor:
    module = engines.model()
    optimizer = torch.optim.Adam(list(module.parameters())[rank::ranks], lr=1e-3)
    for step in range(steps):
        engines.mean_gradients(module, step, rank, ranks)
        optimizer.step()
    return engines.flat(module)


def update_s(rank: int, ranks: int, width: int, steps: int) -> dict[str, float]:
    """Least processor time of a step's updates at each stage of the native engine; stages take turns.

    Time of the thread, not of the clock: a rank may wait for a core in the middle of an update.
    """
    trained = {
        stage: engines.engine("native", stage, rank, ranks, engines.model(width=width), bucket_mb=None)
        for stage in range(4)
    }
    spent: dict[int, list[float]] = {stage: [] for stage in trained}
    for stage, engine in trained.items():
        assert isinstance(engine, NativeEngine)
        for entry in engine.optimizers:
            timed_step = functools.partial(timed, entry.optimizer.step, spent[stage])
            entry.optimizer.step = timed_step  # type: ignore[assignment]
    least = dict.fromkeys(trained, float("inf"))
    for step in range(steps):
        inputs = torch.randn(8, width, generator=torch.Generator().manual_seed(step))
        for stage, engine in trained.items():
            spent[stage].clear()
            engine.forward_backward((inputs, inputs), engines.loss, sync=True)
            engine.optimizer_step()
            least[stage] = min(least[stage], sum(spent[stage]))
    return {f"stage {stage}": seconds for stage, seconds in least.items()}


def timed(step: Callable[[], Any], spent: list[float]) -> None:
    before = time.thread_time()
    step()
    spent.append(time.thread_time() - before)
