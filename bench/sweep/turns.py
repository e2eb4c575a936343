"""A cell's turn in a round: one timed launch and, with a profile, the same without communication."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from bench.job import Job, LaunchResult
from bench.measure.machine import environment
from bench.plan.cell import Cell
from bench.sweep import results
from bench.sweep.records import GOES_ON
from bench.sweep.running import Running
from results.launches import Launch


class Turns:
    """Makes the launches of rounds, in the order that the caller draws."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def any_left(self, cells: Sequence[Cell]) -> bool:
        """Whether any of the cells has a launch left to make."""
        return any(self._has_left(cell) for cell in cells)

    def take(self, cell: Cell, number: int) -> None:
        """A cell's launch of one round, unless it has all of them or has failed."""
        if self._has_left(cell):
            self._launch(cell, number)

    def _has_left(self, cell: Cell) -> bool:
        record = self._running.records[cell]
        return len(record.launches) < cell.config.repeats and record.status in GOES_ON

    def _launch(self, cell: Cell, number: int) -> None:
        running = self._running
        record = running.records[cell]
        where = f"launch {len(record.launches) + 1}/{cell.config.repeats}"
        running.progress.start(f"{where} {cell.id}")
        outcome = self._timed(cell, number)
        if isinstance(outcome, LaunchResult):
            running.fail(cell, outcome)
            return
        record.launches.append(outcome)
        record.status = "ok"
        running.records.write(cell)
        running.progress.advance(where)
        if cell.config.measure.profile and not cell.unsilenced():
            self._launch_silent(cell, number)
            running.progress.advance(where)

    def _launch_silent(self, cell: Cell, number: int) -> None:
        """The same without communication. If it fails, its reason is recorded and the cell continues."""
        record = self._running.records[cell]
        if record.attribution and not record.attribution.not_silenced:
            outcome = self._timed(cell, number, silent=True)
            reason = ""
            if isinstance(outcome, LaunchResult):
                reason = f"{outcome.status}: {outcome.reason}"
            elif not all(math.isfinite(loss) for rank in outcome.ranks for loss in rank.losses):
                reason = "its numbers are not finite, and not as fast to compute with"
            else:
                record.attribution.silent.append(outcome)
            if reason:
                record.attribution = dataclasses.replace(record.attribution, not_silenced=reason)
                self._running.progress.note(f"{cell.id}: no launch without communication: {reason}")
            self._running.records.write(cell)

    def _timed(self, cell: Cell, number: int, *, silent: bool = False) -> Launch | LaunchResult[Any]:
        """A launch that was timed, or how it failed."""
        running = self._running
        started_at = environment.now()
        job: Job[Any] = running.jobs(cell).timed(silent=silent, number=number)
        result = running.launcher.launch(job)
        running.observe(cell, result)
        if result.status != "ok":
            return result
        running.breakdown.add_launch(results.longest_s(result), result.total_s)
        running.records[cell].resolved["start_method"] = result.start_method
        return results.timed(result, number, started_at, cell.config.local_steps, cell.ranks_by_host)
