"""Environment variables for debugging are named in a warning, and rejected where an engine crashes under them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.measure.machine.environment import allowed
from bench.measure.verdicts import disturbances
from bench.plan.cell import Cell
from results.distorting import DISTORTING, distorting
from results.launches import Launch
from results.record import Record

SLOWING = {
    "TORCH_DISTRIBUTED_DEBUG": "DETAIL",
    "PYTHONMALLOC": "debug",
    "CUDA_LAUNCH_BLOCKING": "1",
    "NCCL_DEBUG": "TRACE",
    "TORCH_SHOW_CPP_STACKTRACES": "1",
    "LD_PRELOAD": "/usr/lib/gcc/libtsan.so.2",
    "PYTHONDEVMODE": "1",
    "PYTHONTRACEMALLOC": "25",
}
HARMLESS = {
    "TORCH_DISTRIBUTED_DEBUG": "OFF",
    "PYTHONMALLOC": "pymalloc",
    "CUDA_LAUNCH_BLOCKING": "0",
    "NCCL_DEBUG": "VERSION",
    "TORCH_SHOW_CPP_STACKTRACES": "0",
    "LD_PRELOAD": "/usr/lib/libjemalloc.so.2",
    "PYTHONDEVMODE": "",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}


def record(variables: dict[str, str], *launches: Launch) -> Record:
    return Record("id", "", {}, {}, {"variables": allowed(variables)}, launches=list(launches))


@pytest.mark.parametrize("name", SLOWING)
def test_a_timed_cell_names_the_variable_and_its_value(name: str) -> None:
    launch = Launch(0, "", {}, [])
    words = disturbances(record({name: SLOWING[name]}, launch))["distorting_environment"]
    assert words.startswith(f"{name}=") and SLOWING[name].rsplit("/", 1)[-1] in words
    assert "distorting_environment" not in disturbances(record({name: SLOWING[name]}))


def test_values_that_switch_them_off_are_harmless() -> None:
    assert distorting(HARMLESS) == {}
    assert set(SLOWING) <= set(distorting(SLOWING)) <= set(DISTORTING)


@pytest.mark.parametrize(
    ("engine", "stage", "rejected"),
    [("native", 3, True), ("native", 0, False), ("torch", 0, True), ("torch", 3, False)],
)
def test_an_engine_that_crashes_under_detail_is_rejected_before_ranks_start(
    engine: str, stage: int, rejected: bool, make_cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_DISTRIBUTED_DEBUG", "DETAIL")
    cell = make_cell(engine=engine, stage=stage, gpus=2)
    assert (cell.status == "unsupported") is rejected
    assert ("TORCH_DISTRIBUTED_DEBUG=DETAIL" in cell.reason) is rejected
