"""The parts of a step, as columns of the table."""

from __future__ import annotations

from math import nan
from statistics import fmean

from results.attribution import Attribution
from results.record import Record

PARTS = ("compute", "optimizer", "exposed", "straggler", "host", "data")
"""In the order in which they are shown."""

COLUMNS = [*[f"{part}_part_s" for part in PARTS], "overlap_ratio", "exposed_profiled_s", "exposed_removed_s"]

WORDS = {"exposed": "exposed communication", "straggler": "wait for stragglers", "data": "data"}


def columns(record: Record) -> dict[str, float]:
    """A cell's columns: seconds of a step by part, mean over profiled steps and ranks; NaN where none were profiled."""
    attribution = record.attribution or Attribution()
    steps = [step for rank in attribution.steps for step in rank]
    profiled, removed = attribution.profiled_s(), attribution.removed_s(record.launches)
    communication_s = sum(step.communication_s for step in steps)
    overlapped_s = sum(step.overlapped_s for step in steps)
    return {f"{part}_part_s": fmean(step.parts_s[part] for step in steps) if steps else nan for part in PARTS} | {
        "overlap_ratio": overlapped_s / communication_s if communication_s else nan,
        "exposed_profiled_s": profiled.value if profiled else nan,
        "exposed_removed_s": removed.value if removed else nan,
    }
