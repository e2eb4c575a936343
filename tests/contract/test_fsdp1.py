"""FullyShardedDataParallel on real ranks: training, memory and traffic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from analysis.metrics.memory import memory
from analysis.metrics.traffic import sent_bytes
from analysis.theory import predict_rest, predict_sent, predict_state
from bench.engines.base import Engine, RankContext
from bench.engines.fsdp1 import adapter
from bench.engines.spec import EngineSpec, EngineUnsupported
from bench.worker import fake_group
from tests.conftest import AsRecord, MakeCell, RunCheck, assert_parity

ALL = {"memory": True, "collectives": True}
MLP = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 4, "width": 61}
"""Nothing divides by the world size or by 16 bytes."""
ADAPTED = {"name": "adapted", "factory": "tests.models:Odd", "kind": "adapted"}
"""Frozen weights and trained ones in one unit."""


@pytest.mark.parametrize(
    ("gpus", "settings"),
    [
        (3, {"accumulate": 2}),
        pytest.param(2, {"stage": 2, "accumulate": 2, "precision": "bf16_master"}, marks=pytest.mark.exhaustive),
        pytest.param(4, {"shard_size": 2}, marks=pytest.mark.exhaustive),
        pytest.param(4, {"stage": 2, "shard_size": 2}, marks=pytest.mark.exhaustive),
        pytest.param(2, {"workload": ADAPTED}, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_training_memory_and_traffic_are_as_predicted(
    gpus: int, settings: dict[str, Any], make_cell: MakeCell, run_check: RunCheck, as_record: AsRecord
) -> None:
    """The peak is at most the predicted one; everything else is equal to the byte."""
    cell = make_cell(engine="fsdp1", gpus=gpus, measure=ALL, **({"stage": 3, "workload": MLP} | settings))
    ranks = run_check(cell)
    assert_parity(ranks)
    record = as_record(cell, ranks)
    record.memory = [rank.memory for rank in ranks if rank.memory]
    record.collectives = ranks[0].collectives
    states = [rank.memory.state_bytes for rank in ranks]
    predicted = predict_state(record)
    largest = max(states, key=lambda state: sum(state.values()))
    assert {kind: size for kind, size in predicted.items() if size} == {
        kind: largest[kind] for kind in largest if largest[kind]
    }
    assert max(rank.memory.rest_bytes - rank.memory.rest_by_kind.get("batch", 0) for rank in ranks) == pytest.approx(
        predict_rest(record), rel=0.01
    )
    assert sent_bytes(record) == predict_sent(record)
    peak_bytes = memory(record).peak_predicted_bytes
    assert peak_bytes is not None
    assert all(rank.peak_bytes <= peak_bytes for rank in record.memory)


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        (3, {"precision": "amp_bf16", "clip_norm": 0.1}),
        pytest.param(3, {"precision": "amp_fp16", "clip_norm": 0.1}, marks=pytest.mark.exhaustive),
        pytest.param(2, {"checkpointing": "full"}, marks=pytest.mark.exhaustive),
        pytest.param(3, {"checkpointing": "selective"}, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_training_equals_a_single_process(
    stage: int, settings: dict[str, Any], make_cell: MakeCell, run_check: RunCheck
) -> None:
    assert_parity(run_check(make_cell(engine="fsdp1", stage=stage, gpus=2, workload="gpt", batch_size=4, **settings)))


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({}, "GCGCGC" + "GGCRGCRCR"),
        ({"backward_prefetch": "post"}, "GCGCGC" + "GCGRCGRCR"),
        ({"backward_prefetch": "none"}, "GCGCGC" + "GCRGCRGCR"),
        ({"forward_prefetch": True}, "GGCGC" + "GGCGCRCRR"),
    ],
    ids=str,
)
def test_prefetching_gathers_before_computation(options: dict[str, Any], order: str, alone: Engine) -> None:
    """In the third step, on a CPU: G gathers a unit, C computes with it, R reduces its gradient.

    Autograd runs nodes in the reverse order of their creation. A prefetched unit's views are older than the previous
    unit's forward, so its gradient is reduced after the previous unit's backward.
    """
    module = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    engine_options = {"backward_prefetch": "pre", "forward_prefetch": False, "limit_all_gathers": True} | options
    spec = EngineSpec(stage=3, world_size=2, device="cpu", backend="fake", options=engine_options)
    alone.setup(module, list(module), spec, RankContext(0, 2, torch.device("cpu"), dist.HashStore()))
    for _ in range(3):
        with Operators() as operators:  # type: ignore[no-untyped-call]
            alone.forward_backward((torch.ones(2, 8),), lambda net, batch: net(batch[0]).square().mean(), sync=True)
        alone.optimizer_step()
    assert operators.order == order
    described: dict[str, Any] = {**alone.describe()}
    chosen = engine_options["backward_prefetch"]
    assert described["backward_prefetch"] == (None if chosen == "none" else chosen)
    assert described["forward_prefetch"] is engine_options["forward_prefetch"]


@pytest.fixture
def alone() -> Iterator[Engine]:
    """The engine of rank 0, of a world of two whose other rank is simulated."""
    try:
        fake_group.join_group(0, 2)
    except EngineUnsupported as error:
        pytest.skip(str(error))
    yield adapter.create()
    dist.destroy_process_group()


class Operators(TorchDispatchMode):
    """The order of all-gathers (G), reduce-scatters (R) and, as one, the matrix products between them (C)."""

    LETTERS: ClassVar = {"allgather_": "G", "_reduce_scatter_base_": "R", "mm": "C", "addmm": "C"}
    order = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        letter = self.LETTERS.get(func.overloadpacket.__name__, "")
        if letter != "C" or not self.order.endswith("C"):
            self.order += letter
        return func(*args, **(kwargs or {}))


@pytest.mark.exhaustive
def test_rank_0_of_a_simulated_world_is_that_of_a_real_one(make_cell: MakeCell, run_check: RunCheck) -> None:
    settings: dict[str, Any] = {"stage": 3, "gpus": 3, "accumulate": 2, "workload": MLP, "clip_norm": 1.0}
    quick = {"parity_steps": 0, **ALL}
    cells = [make_cell(engine="fsdp1", backend=backend, measure=quick, **settings) for backend in ("gloo", "fake")]
    real, alone = map(run_check, cells)
    assert (len(real), len(alone)) == (3, 1)
    assert alone[0].memory.state_bytes == real[0].memory.state_bytes
    assert alone[0].collectives == real[0].collectives
