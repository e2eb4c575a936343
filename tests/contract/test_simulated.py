"""``backend=fake``: rank 0 of a world that is not there keeps and calls what rank 0 of a real one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from analysis.metrics.traffic import sent_bytes
from analysis.projection.traffic import collectives_at
from analysis.theory import predict_sent, predict_state
from bench.engines.base import RankContext
from bench.engines.native.collectives import collectives
from bench.launch.launcher import Launcher
from bench.plan.jobs import Jobs
from bench.rank_results import CheckResult
from bench.worker import fake_group
from results.launches import Collective
from tests.conftest import AsRecord, MakeCell, RunCheck

MLP = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 3, "width": 64, "bias": False}
UNEVEN = MLP | {"width": 37, "bias": True}
"""Nothing divides by the world size."""
QUICK = {"parity_steps": 0, "memory": True, "collectives": True}
ENGINES = ("native", "torch", "deepspeed")


@pytest.mark.parametrize(
    ("engine", "stage", "gpus"),
    [
        *((engine, stage, gpus) for engine in ENGINES for stage, gpus in ((0, 2), (1, 4), (2, 2), (3, 4))),
        ("tensor_parallel", 3, 4),
    ],
)
def test_rank_0_is_that_of_a_real_world(
    engine: str, gpus: int, stage: int, make_cell: MakeCell, run_check: RunCheck
) -> None:
    def ranks(backend: str) -> list[CheckResult]:
        settings: dict[str, Any] = {"stage": stage, "gpus": gpus, "accumulate": 2}
        settings |= {"workload": MLP} if engine == "tensor_parallel" else {"workload": UNEVEN, "clip_norm": 1.0}
        return run_check(make_cell(engine=engine, backend=backend, measure=QUICK, **settings))

    real, alone = ranks("gloo"), ranks("fake")
    assert (len(real), len(alone)) == (gpus, 1)
    assert alone[0].memory.state_bytes == real[0].memory.state_bytes
    assert alone[0].collectives == real[0].collectives
    assert alone[0].description == real[0].description


def test_the_peak_is_that_of_a_real_world_where_the_backend_allocates_nothing(
    make_cell: MakeCell, run_check: RunCheck
) -> None:
    """Between one rank and three, sends and receives have no buffers of their own."""
    peaks = []
    for backend in ("gloo", "fake"):
        cell = make_cell(engine="native", backend=backend, stage=3, gpus=4, workload=MLP, measure=QUICK)
        peaks.append(min(run_check(cell)[0].memory.step_peaks_bytes))  # what is freed late adds
    assert peaks[0] == peaks[1]


@pytest.mark.parametrize(("engine", "stage"), [("native", 0), ("native", 1), ("native", 3), ("torch", 1), ("torch", 3)])
def test_collectives_projected_to_64_ranks_are_those_that_rank_0_of_64_calls(
    engine: str, stage: int, make_cell: MakeCell, run_check: RunCheck
) -> None:
    def called(gpus: int) -> list[Collective]:
        quick = {"parity_steps": 0, "memory": False, "collectives": True}
        cell = make_cell(engine=engine, stage=stage, backend="fake", gpus=gpus, workload=MLP, measure=quick)
        collectives = run_check(cell)[0].collectives
        assert collectives is not None
        return collectives

    assert sums(collectives_at({gpus: called(gpus) for gpus in (2, 4)}, 64)) == sums(called(64))


def sums(calls: list[Collective]) -> dict[tuple[str, str, int], tuple[int, int]]:
    """Calls and elements by kind, dtype and group size."""
    total: dict[tuple[str, str, int], tuple[int, int]] = {}
    for one in calls:
        key = (one.kind, one.dtype, one.group_size)
        count, elements = total.get(key, (0, 0))
        total[key] = (count + one.count, elements + one.count * one.elements)
    return total


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("engine", ENGINES)
def test_one_rank_of_64_is_predicted_to_the_byte(
    engine: str, stage: int, make_cell: MakeCell, run_check: RunCheck, as_record: AsRecord
) -> None:
    cell = make_cell(engine=engine, backend="fake", stage=stage, gpus=64, workload=MLP, measure=QUICK)
    ranks = run_check(cell)
    record = as_record(cell, ranks)
    record.collectives = ranks[0].collectives
    predicted = predict_state(record)
    assert predicted and sum(predicted.values()) == sum(ranks[0].memory.state_bytes.values())
    assert {line.group_size for line in record.collectives} == {64}
    if engine != "deepspeed":  # whose checks for overflow are in no prediction
        assert sent_bytes(record) == predict_sent(record)


@pytest.mark.parametrize("ranks", [2, 4])
def test_what_is_received_is_what_this_rank_would_send(ranks: int) -> None:
    """Nothing is left uninitialised: a peer holds what this rank holds, so a sum is the world size times it."""
    fake_group.join_group(0, ranks)
    try:
        simulated = collectives(RankContext(0, ranks, torch.device("cpu"), FakeStore()), "fake")
        shard = torch.full((2,), torch.nan)
        simulated.reduce_scatter(torch.arange(1.0, 2 * ranks + 1), shard).wait()
        assert shard.tolist() == [ranks * 1.0, ranks * 2.0]
        unsharded = torch.tensor([1.0, 2.0] + [torch.nan] * 2 * (ranks - 1))
        simulated.all_gather(unsharded).wait()
        assert unsharded.tolist() == [1.0, 2.0] * ranks
        simulated.all_reduce(unsharded).wait()
        assert unsharded.tolist() == [ranks * 1.0, ranks * 2.0] * ranks
    finally:
        dist.destroy_process_group()


def test_a_rank_alone_is_neither_profiled_nor_timed_without_communication(make_cell: MakeCell) -> None:
    """It would wait for ranks that are not there."""
    cell = make_cell(backend="fake", gpus=8, workload=MLP)
    assert "rank 0 alone" in cell.unprofiled()
    assert "no other to send to" in cell.unsilenced()


def test_only_rank_0s_share_is_made_and_timed(make_cell: MakeCell, launcher: Launcher, scratch: Path) -> None:
    """The data of 100,000 ranks would not fit here."""
    cell = make_cell(backend="fake", engine="torch", stage=1, gpus=100_000, workload=MLP)
    jobs = Jobs(cell, scratch)
    assert launcher.launch(jobs.reference()).status == "ok"
    timed = launcher.launch(jobs.timing())
    assert [len(rank.samples.optimizer_s) for rank in timed.ranks] == [2], timed.reason
