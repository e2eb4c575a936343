"""What a rank's process does with memory that it frees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.launch.launcher import Launcher
from bench.plan.cell import Cell
from tests.conftest import MakeCell, launched

RESIDENT = {"name": "resident", "factory": "tests.models:Resident"}


def test_freed_memory_is_kept_where_steps_are_timed_and_given_back_where_they_are_not(
    launcher: Launcher, make_cell: MakeCell, timing_job: Callable[..., Any], scratch: Any
) -> None:
    cell: Cell = make_cell(engine="native", workload=RESIDENT)
    timed = launcher.launch(timing_job(cell)).ranks[0].samples.losses
    checked = launched(launcher, cell, "check", scratch).ranks[0].parity
    assert timed[-1] == pytest.approx(100, abs=10)
    assert checked.losses[-1] == pytest.approx(0, abs=10)
    assert checked.reference_losses[-1] == pytest.approx(0, abs=10)
