"""When gradients are sent, and whether what is applied is late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.engines.base import Batch
from bench.engines.native.adapter import NativeEngine
from bench.engines.native.collectives import InFlight
from claims.programs import engines
from claims.programs.computed import nodes_run

SEND = "send"


def overlapped(rank: int, ranks: int, steps: int) -> dict[str, dict[str, Any]]:
    """The native engine with overlap and without: gradients sent before backward's last node, and final weights."""
    results: dict[str, dict[str, Any]] = {}
    for stage in range(4):
        runs = [sends(stage, overlap, rank, ranks, steps) for overlap in (True, False)]
        (events, weights), (quiet, same) = runs
        results[f"stage {stage}"] = {
            "sent": events.count(SEND),
            "sent within backward": early(events),
            "without overlap, sent within backward": early(quiet),
            "differing elements": int((weights != same).sum()),
        }
    on_time, late = stale(0, rank, ranks, steps), stale(1, rank, ranks, steps)
    return results | {"stale": {"differing elements": int((on_time != late).sum()), "elements": late.numel()}}


def early(events: list[str]) -> int:
    """Sends before the last node of backward began."""
    last = max(at for at, event in enumerate(events) if event != SEND)
    return events[:last].count(SEND)


def sends(stage: int, overlap: bool, rank: int, ranks: int, steps: int) -> tuple[list[str], Tensor]:
    """What happened in the last backward, and the weights after it."""
    trained = engines.engine("native", stage, rank, ranks, overlap=overlap)
    assert isinstance(trained, NativeEngine)
    engines.train(trained, range(steps - 1), rank)
    events: list[str] = []
    collectives = trained.collectives

    def sending(collective: Callable[..., InFlight]) -> Callable[..., InFlight]:
        def send(*tensors: Tensor) -> InFlight:
            events.append(SEND)
            return collective(*tensors)

        return send

    def loss(module: nn.Module, samples: Batch) -> Tensor:
        value = engines.loss(module, samples)
        nodes_run(value, events)
        return value

    collectives.all_reduce = sending(collectives.all_reduce)  # type: ignore[method-assign]
    collectives.reduce_scatter = sending(collectives.reduce_scatter)  # type: ignore[method-assign]
    trained.forward_backward(engines.batch(steps - 1, rank), loss, sync=True)
    trained.optimizer_step()
    return events, engines.weights(trained)


def stale(steps_late: int, rank: int, ranks: int, steps: int) -> Tensor:
    """Weights of training that applies each gradient so many steps after it was computed."""
    module = engines.model()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    waiting: list[list[Tensor]] = []
    for step in range(steps):
        engines.mean_gradients(module, step, rank, ranks)
        waiting.append([engines.gradient_of(weight).clone() for weight in module.parameters()])
        if step >= steps_late:
            for weight, gradient in zip(module.parameters(), waiting[step - steps_late], strict=True):
                weight.grad = gradient
            optimizer.step()
    return engines.flat(module)
