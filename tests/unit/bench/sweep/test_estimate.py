"""The estimated time of a sweep: the sum of its launches, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.plan.cell import Cell
from bench.plan.resolve import plan
from bench.sweep import estimate
from bench.sweep.breakdown import Breakdown
from bench.sweep.estimate import CEILING_S, END_S, LaunchPace
from results.settings import Config
from tests.conftest import CPU_ONLY

PACE = LaunchPace(launch_s=2.0, step_s=0.5)


def cells_of(configs: list[Config], cores: float = 2) -> list[Cell]:
    return plan(configs, CPU_ONLY, cores)


def seconds(cells: list[Cell], tmp_path: Path) -> float:
    return estimate.seconds(cells, {cell.id: PACE for cell in cells if not cell.status}, tmp_path) - END_S


def test_a_configuration_takes_its_reference_its_check_and_its_launches(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    cells = cells_of([make_config(gpus=2, steps=8, warmup=2, repeats=6)])
    reference, check, timed = 2 + 3 * 2 * 0.5, 2 + (3 + 2) * 0.5, 6 * (2 + 10 * 0.5)
    assert estimate.launches(cells) == 6
    assert seconds(cells, tmp_path) == pytest.approx(reference + check + timed)


def test_ranks_that_share_a_core_take_as_much_longer(make_config: Callable[..., Config], tmp_path: Path) -> None:
    time_alone = {"parity_steps": 0}
    fits, crowded = (
        seconds(cells_of([make_config(gpus=gpus, steps=8, warmup=2, measure=time_alone)]), tmp_path) for gpus in (2, 8)
    )
    reference = 2
    assert crowded - reference == pytest.approx(4 * (fits - reference))


def test_what_configurations_share_is_counted_once(make_config: Callable[..., Config], tmp_path: Path) -> None:
    configs = [make_config(stage=stage, gpus=2, measure={"ceiling": True}) for stage in (0, 1)]
    one, two = (seconds(cells_of(configs[:count]), tmp_path) for count in (1, 2))
    shared = (2 + 3 * 2 * 0.5) + (2 + CEILING_S)
    assert two == pytest.approx(2 * (one - shared) + shared)


def test_a_launch_without_communication_is_counted_too(make_config: Callable[..., Config]) -> None:
    cells = cells_of([make_config(gpus=gpus, repeats=3, measure={"profile": True}) for gpus in (1, 2)])
    assert [estimate.launches([cell]) for cell in cells] == [3, 6]


def test_the_time_outside_measured_steps_is_reported_in_one_line() -> None:
    breakdown = Breakdown()
    breakdown._started -= 100
    breakdown.add("report", 20)
    breakdown.add_launch({"measured_s": 60, "warmup_s": 5, "init_s": 1, "setup_s": 2}, 70)
    assert breakdown.line() == (
        "100 s in all: 60 s in measured steps, 40 s outside them (most: report 20 s, warm-up steps 5 s, "
        "engine and model set-up 2 s)"
    )
