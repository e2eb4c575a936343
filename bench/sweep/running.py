"""State that all launches of a running sweep share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import causes
from bench.job import Job, LaunchResult, R
from bench.launch.launcher import Launcher
from bench.plan.cell import Cell
from bench.plan.jobs import Jobs
from bench.sweep.breakdown import Breakdown
from bench.sweep.progress import SweepProgress
from bench.sweep.records import SweepRecords
from results.decode import decode
from results.record import Status


@dataclass(frozen=True)
class Running:
    """Where launches are made, where their time and their results are kept, and where messages go."""

    records: SweepRecords
    launcher: Launcher
    scratch: Path
    breakdown: Breakdown
    progress: SweepProgress
    notes: set[str] = field(default_factory=set)
    """Lines that were printed once and need no second time."""

    def launch(self, job: Job[R], phase: str) -> LaunchResult[R]:
        """Runs the job; its time belongs to ``phase``."""
        result = self.launcher.launch(job)
        self.breakdown.add(phase, result.total_s)
        return result

    def jobs(self, cell: Cell) -> Jobs:
        model = self.records[cell].model
        return Jobs(cell, self.scratch, model.step.first_use if model else "", self.records.traces_folder)

    def observe(self, cell: Cell, result: LaunchResult[Any]) -> None:
        """Records global state that the factory changed, and prints once how ranks start if not by a plain fork."""
        resolved = self.records[cell].resolved
        changes = list(dict.fromkeys(line for rank in result.ranks for line in rank.changes))
        if changes:
            resolved["global_changes"] = list(dict.fromkeys([*resolved.get("global_changes", []), *changes]))
        for line in changes:
            self.note_once(f"{cell.config.workload['name']}: {line}")
        how, _, why = result.start_method.partition(" (")
        if how == "spawn":
            self.note_once(f"ranks are spawned, not forked: {why[:-1]}. Each rank of each launch imports torch again")
        elif why:
            self.note_once(f"each rank loads the workload by itself: {why[:-1]}")

    def note_once(self, line: str) -> None:
        if line not in self.notes:
            self.notes.add(line)
            self.progress.note(line)

    def fail(self, cell: Cell, result: LaunchResult[Any], prefix: str = "") -> None:
        """Ends the cell with a failed launch; its reason follows ``prefix``. Remaining launches count as done."""
        left, record = self.records.launches_left(cell), self.records[cell]
        record.status = decode(result.status, Status, "status")
        record.reason = prefix + result.reason
        if record.model and record.status in ("failed", "timeout"):
            is_apart = record.status == "timeout" or causes.may_be_out_of_step(record.reason)
            record.reason = record.model.explained(record.reason, is_apart=is_apart, is_sharded=cell.is_sharded)
        record.failure = result.ends
        self.records.write(cell)
        self.progress.note(f"{cell.id}: {record.status}: {record.reason}{self._where(cell)}")
        self.progress.advance(cell.id, left)

    def _where(self, cell: Cell) -> str:
        """Where the output of the ranks of a failed launch is; a traceback is a part of it."""
        record = self.records[cell]
        ends = [] if record.status in ("unsupported", "unavailable") else record.failure
        if not any(end.last_output for end in ends):
            return ""
        what = "the traceback" if any("Traceback" in end.last_output for end in ends) else "the output of the ranks"
        return f"; {what} is in `failure` of {self.records.store.folder}/records/{cell.id}.json"
