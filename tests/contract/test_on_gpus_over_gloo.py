"""Several ranks on one GPU meet over gloo, which sends and receives from the host only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import engines
from bench.engines import deepspeed, fabric
from bench.engines.spec import EngineUnsupported
from bench.launch.launcher import Launcher
from bench.launch.local import LocalLauncher
from bench.measure.machine.torch_build import Machine
from bench.plan.cell import Cell
from bench.plan.resolve import plan
from tests.conftest import CPU_ONLY, MakeCell, assert_parity, launched

pytestmark = pytest.mark.alone

ONE_GPU = dataclasses.replace(CPU_ONLY, cuda_devices=1, nccl="2.28.9")


@pytest.fixture(scope="module")
def staged() -> Iterator[Launcher]:
    """Its ranks' native engine takes the host for a GPU."""
    with LocalLauncher(("torch._dynamo", "torch.optim", "tests.staged")) as launcher:
        yield launcher


@pytest.fixture(scope="module")
def saw_gpus() -> Iterator[Launcher]:
    """Its ranks' DeepSpeed has taken GPUs for all of the process."""
    with LocalLauncher(engines.preload("bench.engines.deepspeed"), variables={"DS_ACCELERATOR": "cuda"}) as launcher:
        yield launcher


def check(cell: Cell, launcher: Launcher, scratch: Path) -> None:
    """Holds the cell to a single process."""
    assert_parity(launched(launcher, cell, "check", scratch).ranks)


@pytest.mark.parametrize(("stage", "gpus"), [(0, 2), (0, 3), (1, 3), (2, 3), (3, 2)])
def test_buffers_that_gloo_cannot_reach_go_by_the_host(
    stage: int, gpus: int, make_cell: MakeCell, staged: Launcher, scratch: Path
) -> None:
    check(make_cell(engine="native", stage=stage, gpus=gpus, bucket_mb=None if stage == 3 else 0.05), staged, scratch)


@pytest.mark.parametrize("engine", ["pipeline", "fabric"])
def test_engines_that_need_a_gpu_for_each_rank_are_rejected_there(
    engine: str, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fabric, "INSTALLED", True)
    config = make_config(engine=engine, workload="mlp", gpus=2)
    for machine, status in ((ONE_GPU, "unsupported"), (two_gpus(), None), (CPU_ONLY, None)):
        (cell,) = plan([config], machine, cores=2)
        assert cell.status == status
        assert status is None or "backend=gloo on device=cuda" in cell.reason


def two_gpus() -> Machine:
    return dataclasses.replace(ONE_GPU, cuda_devices=2)


@pytest.mark.skipif(not deepspeed.INSTALLED, reason="deepspeed is not installed")
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_deepspeed_computes_on_the_cpu_of_a_machine_with_gpus(
    stage: int, make_cell: MakeCell, saw_gpus: Launcher, scratch: Path
) -> None:
    check(make_cell(engine="deepspeed", stage=stage, gpus=2), saw_gpus, scratch)


@pytest.mark.skipif(not deepspeed.INSTALLED, reason="deepspeed is not installed")
def test_deepspeed_rejects_gpus_that_it_must_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.engines.deepspeed import library
    from bench.engines.deepspeed.adapter import take_device

    accelerator = SimpleNamespace(device_name=lambda: "cpu")
    monkeypatch.setattr(library.deepspeed.accelerator, "get_accelerator", lambda: accelerator)
    with pytest.raises(EngineUnsupported, match="DS_ACCELERATOR"):
        take_device("cuda")
