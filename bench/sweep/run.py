"""A sweep: plans all cells, checks each, times them in interleaved rounds, and ends with a report.

    plan    every request resolved on this machine, or reported as unsupported; each workload is loaded once
    check   one launch a cell: parity, model state, peak bytes, collectives; cells that train the same share a reference
    profile if set, another: what the time of a step is made of
    rounds  each round launches every cell once, in shuffled order, so that drift hits all cells alike
    finish  report and tracking, also after Ctrl-C

The record of a cell is rewritten after each of its launches: whatever stops a sweep, what was measured stays.
"""

from __future__ import annotations

import contextlib
import random
import sys
from pathlib import Path

from bench import engines
from bench.checks import ConfigError, check_sweep
from bench.launch.cluster import submission
from bench.launch.cluster.start import open_launcher
from bench.launch.launcher import Launcher, LaunchError
from bench.measure.machine import source
from bench.plan.cell import Cell
from bench.plan.resolve import plan
from bench.sweep import dry_run
from bench.sweep.announce import show_plan
from bench.sweep.breakdown import Breakdown
from bench.sweep.budget import Budget
from bench.sweep.hosts import check_same_code, environment_of, health_of
from bench.sweep.loading import check_workloads
from bench.sweep.preparation import Preparation
from bench.sweep.progress import SweepProgress
from bench.sweep.records import GOES_ON, SweepRecords
from bench.sweep.report import load_libraries, write_report
from bench.sweep.resume import take_over
from bench.sweep.running import Running
from bench.sweep.scratch import scratch
from bench.sweep.turns import Turns
from bench.tracking.tracker import open_tracker
from results.environment import Environment
from results.health import Health
from results.settings import Config
from results.source import Source
from results.store import FolderBusy, RecordStore, StoreError

BAD = ("failed", "timeout", "oom", "parity_failed")
"""Statuses that make the sweep's exit code 1; a rejection is an answer, not a failure."""

INTERRUPTED = 130


def run(configs: list[Config], folder: Path) -> int:
    """Runs every cell that ``configs`` ask for; the exit code. Raises ConfigError before anything starts.

    A dry run prints its plan instead, and leaves no folder: it raises SystemExit with status 0.
    """
    check_sweep(configs)
    if configs[0].dry_run:
        return dry_run.run(configs)
    with contextlib.closing(open_store(folder, resume=configs[0].resume)) as store:
        if not submission.is_needed(configs[0].cluster):
            return run_in(store, configs)
    return submission.run(configs[0].cluster, folder, sys.argv[1:])  # the job writes into the folder


def run_in(store: RecordStore, configs: list[Config]) -> int:
    """``run`` in a folder that is the sweep's alone."""
    settings, folder, breakdown = configs[0], store.folder, Breakdown()
    budget = Budget(settings.budget_s)
    preload = engines.preload(*(config.engine["package"] for config in configs))
    with scratch() as folder_for_now:
        try:
            with contextlib.closing(open_launcher(settings.cluster, preload)) as launcher:
                load_libraries()  # the server imports torch meanwhile, on one core
                tracker = open_tracker(settings.tracking, folder)
                code_now = source.collect(sys.argv[1:])
                check_same_code(launcher.hosts, code_now)
                breakdown.lap("warm-up")
                health = health_of(launcher, settings.cluster)
                hosts = launcher.hosts
                breakdown.lap("health check")
                cells = plan(configs, hosts[0].machine, hosts[0].cores, hosts)
                cells = check_workloads(cells, launcher, folder_for_now)
                breakdown.lap("workloads")
                if code_now.not_recorded:
                    print(f"warning: records lack part of the code's state: {code_now.not_recorded}", file=sys.stderr)
                around = environment_of(hosts, code_now)
                sweep = Sweep(cells, store, launcher, around, folder_for_now, breakdown, code_now, health)
                if settings.resume:
                    take_over(sweep.records)
                code = launcher.status = sweep.run(budget)
        except LaunchError as error:
            raise ConfigError(str(error)) from error
    breakdown.lap("")
    try:
        reported = write_report(sweep.records, tracker, breakdown, show_breakdown=settings.measure.timing_breakdown)
        return code or int(not reported)
    except KeyboardInterrupt:
        print(
            f"interrupted; the records are whole, report them with: python -m analysis report {store.folder}",
            file=sys.stderr,
        )
        return INTERRUPTED


def open_store(folder: Path, *, resume: bool) -> RecordStore:
    """The sweep's folder. Raises ConfigError if it holds a sweep already, or none to resume."""
    has_records = any((folder / "records").glob("*.json"))
    if resume and not (folder / "records").is_dir():
        raise ConfigError(f"resume=true found no earlier sweep in {folder}; name its folder with hydra.sweep.dir=...")
    if has_records and not resume:
        raise ConfigError(
            f"{folder} already contains a sweep; set resume=true to continue it, or another hydra.sweep.dir"
        )
    try:
        return RecordStore(folder)
    except FolderBusy as error:
        raise ConfigError(f"{error}; hydra.sweep.dir=... names another") from error


class Sweep:
    """All cells of one sweep, their records, and the launches that fill them."""

    def __init__(
        self,
        cells: list[Cell],
        store: RecordStore,
        launcher: Launcher,
        environment_now: Environment,
        scratch: Path,
        breakdown: Breakdown,
        source_now: Source | None = None,
        health: Health | None = None,
    ) -> None:
        self.cells = cells
        self.store = store
        self.launcher = launcher
        self.scratch = scratch
        self.breakdown = breakdown
        self.records = SweepRecords(cells, store, launcher.machine, environment_now, source_now, health)

    def begin(self, progress: SweepProgress) -> tuple[Preparation, Turns]:
        """Creates the makers of launches: before the rounds, and of the rounds."""
        if any(cell.config.measure.trace for cell in self.cells):
            with contextlib.suppress(OSError):  # each rank then records why it wrote nothing
                self.records.traces_folder.mkdir(exist_ok=True)
        running = Running(self.records, self.launcher, self.scratch, self.breakdown, progress)
        return Preparation(running), Turns(running)

    def run(self, budget: Budget | None = None) -> int:
        """Checks and times all cells, within the budget if there is one; the exit code."""
        budget = budget or Budget(None)
        show_plan(self.cells, self.launcher.machine, f"records in {self.store.folder}")
        if budget.seconds is not None:
            print(budget.announcement(self.cells[0].config.repeats), file=sys.stderr)
        todo = [cell for cell in self.cells if not cell.status]
        launches = sum(self.records.launches_left(cell) for cell in todo)
        code = 0
        try:
            with SweepProgress(launches) as progress:
                preparation, turns = self.begin(progress)
                for cell in todo:
                    preparation.prepare(cell)
                timed = [cell for cell in todo if not cell.searches]
                if not run_rounds(timed, turns, self.records.rounds_begun, budget):
                    self._note_spent(timed, budget, progress)
        except KeyboardInterrupt:
            code = INTERRUPTED
            print("interrupted: what is finished is kept and reported", file=sys.stderr)
        except StoreError as error:
            print(f"stopped: {error}; free some space, then set resume=true to continue", file=sys.stderr)
            code = 1
        self.records.write_all()
        code = code or int(self.store.rescued)
        statuses = [self.records[cell].status for cell in self.cells]
        return code or int(any(status in BAD for status in statuses) or "ok" not in statuses)

    def _note_spent(self, cells: list[Cell], budget: Budget, progress: SweepProgress) -> None:
        """Prints that the budget ended the sweep, with the level of its intervals."""
        launches = [len(self.records[cell].launches) for cell in cells if self.records[cell].status in GOES_ON]
        progress.note(budget.spent(cells[0].config.repeats, min(launches, default=0)))


def run_rounds(cells: list[Cell], turns: Turns, first: int, budget: Budget) -> bool:
    """Gives every cell a turn in each round, from the one with number ``first`` on, in an order of the round's own.

    Returns whether the budget allowed all rounds.
    """
    order = random.Random(cells[0].config.seed if cells else 0)
    for number in range(first, first + max((cell.config.repeats for cell in cells), default=0)):
        if not turns.any_left(cells):
            break
        if not budget.allows_round():
            return False
        with budget.round():
            for cell in order.sample(cells, len(cells)):
                turns.take(cell, number)
    return True
