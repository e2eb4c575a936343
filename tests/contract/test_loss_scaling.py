"""Which updates amp_fp16 skips, and that no step without an update is measured as a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.job import LaunchResult
from bench.launch.launcher import Launcher
from bench.measure.verdicts import updates_missed
from bench.plan.cell import Cell
from bench.plan.resolve import plan
from bench.sweep import results
from results.record import Record
from results.settings import Config
from tests.conftest import CPU_ONLY, MakeCell, RunCheck, launched
from tests.scaled_loss import workload

ENGINES = [("native", 0), ("native", 1), ("native", 2), ("native", 3), ("torch", 0), ("torch", 3), ("deepspeed", 0)]


def scaled(make_cell: MakeCell, factor: float, **settings: Any) -> Cell:
    return make_cell(workload=workload(factor), precision="amp_fp16", optimizer="adam", **settings)


@pytest.mark.parametrize("gpus", [1, 2, 3, 4])
@pytest.mark.parametrize(("engine", "stage"), [("native", 0), ("native", 3), ("torch", 0)])
def test_updates_are_skipped_at_the_steps_at_which_a_single_process_skips(
    engine: str, stage: int, gpus: int, make_cell: MakeCell, run_check: RunCheck
) -> None:
    """Each factor is the least that overflows by the previous scale: a loss divided by the ranks would not."""
    cell = scaled(make_cell, 1e4, engine=engine, stage=stage, gpus=gpus, measure={"parity_steps": 24})
    parity = run_check(cell)[0].parity
    assert len(set(parity.reference_losses)) == 24, "each step has another batch"
    assert parity.loss_error < parity.tolerance / 3 and parity.weights_error < parity.tolerance / 3


@pytest.mark.parametrize(("engine", "stage"), [("native", 2), ("torch", 0)])
def test_accumulation_skips_where_a_single_process_skips(
    engine: str, stage: int, make_cell: MakeCell, run_check: RunCheck
) -> None:
    cell = scaled(
        make_cell, 1e4, engine=engine, stage=stage, gpus=2, accumulate=4, measure={"parity_steps": 24}, batch_size=8
    )
    parity = run_check(cell)[0].parity
    assert parity.loss_error < parity.tolerance / 3 and parity.weights_error < parity.tolerance / 3


@pytest.mark.parametrize("factor", [10.0, 1e5])
@pytest.mark.parametrize(("engine", "stage"), ENGINES)
def test_timed_and_watched_steps_all_update(
    engine: str, stage: int, factor: float, make_cell: MakeCell, run_check: RunCheck, launcher: Launcher, scratch: Path
) -> None:
    measure = {"parity_steps": 0, "memory": True, "collectives": True}
    cell = scaled(make_cell, factor, engine=engine, stage=stage, gpus=2, steps=6, measure=measure)
    checked = run_check(cell)
    timed = launched(launcher, cell, "timing", scratch).ranks
    for updates in [*(rank.updates for rank in checked), *(rank.samples.updates for rank in timed)]:
        assert (updates.skipped, updates.weights_changed) == (0, True)
        assert updates.settling > 0 or factor < 1e5
    unscaled = scaled(make_cell, 1.0, engine=engine, stage=stage, gpus=2, steps=6, measure=measure)
    for rank, usual in zip(checked, run_check(unscaled), strict=True):
        assert rank.memory.state_bytes == usual.memory.state_bytes
        assert rank.collectives == usual.collectives


def test_deepspeed_never_lowers_the_loss_scale_when_it_shards_and_is_flagged(
    make_cell: MakeCell, run_check: RunCheck
) -> None:
    """DeepSpeed 0.19.8: its optimizer wrapper skips the update, and the scaler does not hear of it."""
    cell = scaled(make_cell, 10.0, engine="deepspeed", stage=1, gpus=2, measure={"parity_steps": 0, "memory": True})
    record = Record(cell.id, "", dataclasses.asdict(cell.config), cell.resolved(), {})
    results.take_check(record, LaunchResult("ok", ranks=run_check(cell)))
    assert "skipped the update of 3 of 3 watched" in updates_missed(record)["skipped_updates"]


@pytest.mark.parametrize(("engine", "stage"), [("native", 1), ("torch", 0), ("deepspeed", 0)])
def test_skips_that_no_settling_ends_are_counted_and_flagged(
    engine: str, stage: int, make_cell: MakeCell, launcher: Launcher, scratch: Path
) -> None:
    """Without warm-up nothing settles before time begins."""
    cell = scaled(make_cell, 1e5, engine=engine, stage=stage, gpus=2, steps=6, warmup=0)
    if cell.status:
        pytest.skip(cell.reason)
    launch = results.timed(launched(launcher, cell, "timing", scratch), 0, "", 1)
    assert [rank.updates and rank.updates.skipped for rank in launch.ranks] == [6, 6]


def test_an_engine_that_never_calls_its_optimizer_is_flagged_in_timed_and_watched_steps(
    make_config: Callable[..., Config], run_check: RunCheck, launcher: Launcher, scratch: Path
) -> None:
    wrong = {"name": "wrong", "package": "tests.wrong_engine", "fault": "never_steps"}
    config = make_config(engine=wrong, gpus=2, measure={"parity_steps": 0, "memory": True})
    cell = plan([config], CPU_ONLY, cores=2)[0]
    record = Record(cell.id, "", dataclasses.asdict(cell.config), cell.resolved(), {})
    results.take_check(record, LaunchResult("ok", ranks=run_check(cell)))
    record.launches.append(results.timed(launched(launcher, cell, "timing", scratch), 0, "", 1))
    warning = updates_missed(record)["no_update"]
    assert "the timed steps of 1 of 1 launch, the watched (memory, collectives) steps of 1 of 1 launch" in warning
