"""What all launches of a sweep share while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.breakdown import Breakdown
from bench.cells import Cell
from bench.job import Job, LaunchResult
from bench.launch import Launcher
from bench.progress import SweepProgress
from bench.record import Status, decode
from bench.sweep.records import SweepRecords


@dataclass(frozen=True)
class Running:
    """Where launches are made, where their time and their results are kept, and where a person is told."""

    records: SweepRecords
    launcher: Launcher
    scratch: Path
    breakdown: Breakdown
    progress: SweepProgress

    def launch(self, job: Job, phase: str) -> LaunchResult:
        """Runs the job; its time belongs to ``phase``."""
        result = self.launcher.launch(job)
        self.breakdown.add(phase, result.total_s)
        return result

    def fail(self, cell: Cell, result: LaunchResult, prefix: str = "") -> None:
        """Ends the cell with a launch that failed; its reason follows ``prefix``. What it had left counts as done."""
        left, record = self.records.launches_left(cell), self.records[cell]
        record.status = decode(result.status, Status, "status")
        record.reason = prefix + result.reason
        record.failure = result.ends
        self.records.write(cell)
        self.progress.note(f"{cell.id}: {record.status}: {record.reason}")
        self.progress.advance(cell.id, left)
