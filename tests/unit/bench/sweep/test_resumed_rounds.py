"""A sweep that goes on: what it measures later is paired with nothing that was measured before."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from bench.job import Job, LaunchResult
from bench.launch.launcher import Launcher
from bench.plan.resolve import plan
from bench.rank_results import TimingResult
from bench.sweep.breakdown import Breakdown
from bench.sweep.budget import Budget
from bench.sweep.progress import SweepProgress
from bench.sweep.resume import take_over
from bench.sweep.run import Sweep, run_rounds
from results.launches import Interference, RankSamples
from results.record import Record
from results.settings import Config
from results.store import RecordStore
from tests.conftest import CPU_ONLY

Run = Callable[..., dict[int, Record]]


class Instant:
    """The launcher of a sweep that is interrupted after some launches, each of which ends well at once."""

    machine = CPU_ONLY

    def __init__(self, launches: float) -> None:
        self.left = launches

    def launch(self, job: Job) -> LaunchResult:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        samples = RankSamples([0.1] * job.steps, [0.1] * job.steps, [0.2] * job.warmup, 0.4, [1.0] * job.steps)
        rank = TimingResult(samples=samples, interference=Interference())
        return LaunchResult("ok", ranks=[rank] * job.world_size)


@pytest.fixture
def run(make_config: Callable[..., Config], tmp_path: Path) -> Run:
    """Times cells of these stages in a folder, and goes on with what is there; its records by stage."""

    def run(*stages: int, repeats: int, cut: float = math.inf) -> dict[int, Record]:
        cells = plan([make_config(stage=stage, repeats=repeats, gpus=2) for stage in stages], CPU_ONLY, cores=2)
        sweep = Sweep(cells, RecordStore(tmp_path), cast(Launcher, Instant(cut)), {}, tmp_path, Breakdown())
        take_over(sweep.records)
        with contextlib.suppress(KeyboardInterrupt):
            run_rounds(cells, sweep.begin(SweepProgress(1))[1], sweep.records.rounds_begun, Budget(None))
        return {cell.config.stage: sweep.records[cell] for cell in cells}

    return run


def rounds(record: Record) -> list[int]:
    return [launch.round for launch in record.launches]


def test_cells_that_are_added_share_no_round_with_those_that_were_there(run: Run) -> None:
    assert rounds(run(0, repeats=3)[0]) == [0, 1, 2]
    record_of = run(0, 1, repeats=4)
    assert (rounds(record_of[0]), rounds(record_of[1])) == ([0, 1, 2, 3], [3, 4, 5, 6])
    assert [record.config["repeats"] for record in record_of.values()] == [4, 4]


def test_a_round_that_was_cut_off_is_over(run: Run) -> None:
    begun = run(0, 1, repeats=2, cut=3)
    (behind,) = (stage for stage, record in begun.items() if rounds(record) == [0])
    record_of = run(0, 1, repeats=2)
    assert (rounds(record_of[behind]), rounds(record_of[1 - behind])) == ([0, 2], [0, 1])
