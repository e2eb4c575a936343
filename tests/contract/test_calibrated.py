"""The time instrument against a workload whose time is known: each engine's steps take what the closed form says.

A sleep is never too short, so the closed form bounds every step from below; a busy machine only makes steps longer, so
from above it is the shortest one that is held to it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from analysis.theory.calibrated import CalibratedStep
from bench.groups import options
from bench.launch.launcher import Launcher
from bench.plan.cell import Cell
from results.host_settings import Network
from results.launches import Launch
from results.settings import Straggler
from tests.conftest import MakeCell, RunCheck, each_engine, group
from tests.integration.test_network import no_lab
from tests.undisturbed import undisturbed

pytestmark = pytest.mark.alone

STEPS = 4
TRAINERS = ("native", "torch", "deepspeed")
Steps = Callable[..., None]


def layers(**changes: Any) -> dict[str, Any]:
    """Two layers of 40 ms with hardly any parameters, unless changed."""
    small = {"layers": 2, "forward_s": 0.015, "backward_s": 0.025, "parameters_mib": 0.01}
    return group("workload", "calibrated") | small | changes


@pytest.fixture
def steps_take(launcher: Launcher, timing_job: Callable[..., Any]) -> Steps:
    """Holds the steps of a cell's timing launch to what they should take."""

    def hold(cell: Cell, expected_s: float, most: float, least: float = 1.0) -> None:
        if cell.status:
            pytest.skip(cell.reason)

        def times_s() -> list[float]:
            result = launcher.launch(timing_job(cell))
            assert result.status == "ok", f"{result.reason}\n{result.ends}"
            ranks = [rank.samples for rank in result.ranks]
            return Launch(0, "", {}, ranks).step_times_s()

        def claim(times: list[float]) -> None:
            assert least * expected_s <= min(times) <= most * expected_s, (expected_s, times)

        undisturbed(times_s, claim)

    return hold


def truth(cell: Cell) -> CalibratedStep:
    return CalibratedStep.of(dataclasses.asdict(cell.config))


@pytest.mark.parametrize("engine", TRAINERS)
@pytest.mark.parametrize("stage", [1, 3])
def test_what_takes_a_set_time_is_trained_like_any_other(
    engine: str, stage: int, make_cell: MakeCell, run_check: RunCheck
) -> None:
    cell = make_cell(engine=engine, stage=stage, gpus=2, workload=layers(forward_s=0.0, backward_s=0.0))
    assert run_check(cell)[0].parity.passed


@pytest.mark.parametrize("engine", each_engine(options("engine")))
def test_a_step_of_one_rank_takes_the_time_of_its_layers(engine: str, make_cell: MakeCell, steps_take: Steps) -> None:
    cell = make_cell(engine=engine, workload=layers(), steps=STEPS)
    steps_take(cell, truth(cell).compute_s(), most=1.5)


def test_each_micro_batch_takes_the_time_of_its_layers(make_cell: MakeCell, steps_take: Steps) -> None:
    cell = make_cell(engine="native", workload=layers(), steps=STEPS, accumulate=2)
    steps_take(cell, 2 * 0.08, most=1.5)


@pytest.mark.parametrize("scaling", ["weak", "strong"])
def test_samples_take_their_time_where_configured(scaling: str, make_cell: MakeCell, steps_take: Steps) -> None:
    workload = layers(per="sample")
    cell = make_cell(engine="native", gpus=2, workload=workload, steps=STEPS, batch_size=4, scaling=scaling)
    expected_s = 0.08 * {"weak": 4, "strong": 2}[scaling]
    assert truth(cell).compute_s() == pytest.approx(expected_s)
    steps_take(cell, expected_s, most=1.5)


def test_what_takes_the_time_is_not_compiled_away(make_cell: MakeCell, steps_take: Steps) -> None:
    cell = make_cell(engine="torch", workload=layers(), steps=STEPS, compile=True)
    steps_take(cell, truth(cell).compute_s(), most=1.5)


@pytest.mark.parametrize("engine", TRAINERS)
@pytest.mark.parametrize(("stage", "gpus"), [(0, 4), (3, 2)])
def test_several_ranks_take_little_longer_than_one_also_on_two_cores(
    engine: str, stage: int, gpus: int, make_cell: MakeCell, steps_take: Steps
) -> None:
    """Weak scaling near 1: four ranks that computed on two cores would take at least twice as long."""
    cell = make_cell(engine=engine, stage=stage, gpus=gpus, workload=layers(), steps=STEPS)
    steps_take(cell, truth(cell).compute_s(), most=1.8)


@pytest.mark.parametrize("engine", TRAINERS)
def test_a_straggler_makes_every_step_its_own(engine: str, make_cell: MakeCell, steps_take: Steps) -> None:
    cell = make_cell(engine=engine, gpus=2, workload=layers(), steps=STEPS, straggler=Straggler(rank=1, factor=3.0))
    steps_take(cell, truth(cell).compute_s(factor=3.0), most=1.4)


@pytest.mark.skipif(no_lab is not None, reason=no_lab or "")
@pytest.mark.parametrize("overlap", [True, False])
def test_over_a_link_of_known_rate_overlap_leaves_only_the_last_bucket_exposed(
    overlap: bool, make_cell: MakeCell, steps_take: Steps
) -> None:
    """Two ranks send S bytes each to all-reduce S: 0.5 MiB are 42 ms at 100 Mbit/s, less than a layer's backward."""
    cell = make_cell(
        engine="native",
        gpus=2,
        workload=layers(layers=4, forward_s=0.01, backward_s=0.06, parameters_mib=0.5),
        steps=STEPS,
        bucket_mb=0.5,
        overlap=overlap,
        optimizer="sgd",
        network=Network("lab", "100mbit"),
    )
    expected_s = truth(cell).step_s(0.5 * 2**20 * 8 / 1e8, overlap=overlap)
    assert expected_s == pytest.approx(0.28 + (1 if overlap else 4) * 0.042, rel=0.01)
    steps_take(cell, expected_s, most=1.3, least=0.95)
