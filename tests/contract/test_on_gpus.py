"""Checks of a machine with GPUs: engines are correct there, and instruments work.

With one GPU, two ranks share it over gloo; with more, each has its own and they meet over NCCL.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.launch.launcher import Launcher
from bench.plan.cell import Cell
from bench.plan.resolve import plan
from results.settings import Config
from tests.conftest import assert_parity, launched

pytestmark = [pytest.mark.alone, pytest.mark.gpu]
DEVICE = "cuda"
Run = Callable[..., list[Any]]


@pytest.fixture
def run(make_config: Callable[..., Config], launcher: Launcher, scratch: Path) -> Run:
    """Runs a launch with one purpose and returns what its ranks say; skips what is rejected by name."""

    def of_cell(purpose: Any, **settings: Any) -> list[Any]:
        cell: Cell = plan([make_config(device=DEVICE, timeout_s=300.0, **settings)], launcher.machine, cores=2)[0]
        if cell.status in ("unsupported", "unavailable"):
            pytest.skip(cell.reason)
        result = launched(launcher, cell, purpose, scratch, may_reject=True)
        assert result.start_method == "fork"  # else something has initialised CUDA before the ranks
        return result.ranks

    return of_cell


@pytest.mark.parametrize("engine", ["native", "torch", "deepspeed", "parameter_server", "tensor_parallel", "pipeline"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("gpus", [1, 2])
def test_an_engine_computes_what_one_process_does(engine: str, stage: int, gpus: int, run: Run) -> None:
    workload = "digits" if engine in ("native", "torch", "deepspeed", "parameter_server") else "gpt"
    assert_parity(run("check", engine=engine, stage=stage, gpus=gpus, workload=workload))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_overlap_and_bucket_size_change_nothing_but_rounding(stage: int, run: Run) -> None:
    """A buffer that is used too early, or reused too soon, would show here: many small buckets, on two streams."""
    for bucket_mb, overlap in ((0.05, True), (0.05, False), (None, True)):
        ranks = run("check", engine="native", stage=stage, gpus=2, workload="gpt", bucket_mb=bucket_mb, overlap=overlap)
        assert ranks[0].parity.error <= ranks[0].parity.tolerance


@pytest.mark.parametrize("gpus", [1, 2])
def test_the_parts_of_a_profiled_step_add_up_to_it(gpus: int, run: Run) -> None:
    for rank in run("profile", engine="native", stage=0, gpus=gpus, workload="gpt", steps=8, warmup=3):
        parts = rank.parts
        assert len(parts) == 8
        assert all(part.compute_s > 0 and part.optimizer_s > 0 for part in parts)
        shares = [
            sum(part.parts_s.values()) / part.step_s
            for part in parts[:-1]  # the last one ends with its last kernel
        ]
        assert statistics.median(shares) == pytest.approx(1, abs=0.1)


def test_memory_is_the_allocators_and_little_of_it_unseen(run: Run) -> None:
    (rank,) = run("check", engine="native", stage=0, workload="gpt", measure={"memory": True})
    memory = rank.memory
    for by_kind, whole in ((memory.rest_by_kind, memory.rest_bytes), (memory.peak_by_kind, memory.peak_bytes)):
        assert sum(by_kind.values()) == whole
        assert abs(by_kind.get("unseen", 0)) <= 0.05 * whole
    assert memory.reserved_bytes >= memory.peak_bytes


def test_a_spin_takes_its_time(run: Run) -> None:
    workload = {"name": "calibrated", "factory": "workloads.calibrated:Calibrated", "layers": 4}
    times = {"forward_s": 0.005, "backward_s": 0.01, "parameters_mib": 0.25}
    (rank,) = run("timing", engine="native", workload=workload | times, steps=10, warmup=5)
    measured = rank.samples.forward_backward_s
    assert statistics.median(measured) == pytest.approx(4 * 0.015, rel=0.1)


def test_fp32_is_fp32_and_16_bits_go_through_tensor_cores(run: Run) -> None:
    """TF32 would be half as fast as bf16."""
    (full,), (half,) = (run("ceiling", engine="native", precision=precision) for precision in ("fp32", "amp_bf16"))
    assert half.ceiling.flops_per_s > 4 * full.ceiling.flops_per_s
    assert half.interference.conditions["alloc_retries"] == 0
