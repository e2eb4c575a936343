"""The parts of a step: rows and notes of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.metrics.step_parts import PARTS
from analysis.table.frame import each_cell
from analysis.table.rows import value
from analysis.text import units
from results.attribution import Attribution, Spread
from results.record import Record


@dataclass(frozen=True)
class StepRow:
    """One cell's step in words, times in ms."""

    knobs: list[str]
    parts: list[str]
    """As ``PARTS``."""
    overlap: str
    profiled: str
    profiled_range: str
    removed: str
    removed_range: str
    notes: list[str]


def step_rows(records: Sequence[Record], table: pd.DataFrame, names: Sequence[str]) -> list[StepRow]:
    """A row for each cell whose steps were attributed, in the table's order."""
    found = []
    for at, row in each_cell(table):
        record = records[at]
        if record.attribution is None:
            continue
        profiled, removed = record.attribution.profiled_s(), record.attribution.removed_s(record.launches)
        found.append(
            StepRow(
                knobs=[value(name, row[name]) for name in names],
                parts=[units.ms(row[f"{part}_part_s"]) for part in PARTS],
                overlap=units.percent(row["overlap_ratio"]),
                profiled=units.ms(row["exposed_profiled_s"]),
                profiled_range=span(profiled),
                removed=units.ms(row["exposed_removed_s"]),
                removed_range=span(removed),
                notes=notes(record.attribution),
            )
        )
    return found


def span(spread: Spread | None) -> str:
    return "" if spread is None else f"{units.ms(spread.low)} to {units.ms(spread.high)}"


def notes(found: Attribution) -> list[str]:
    """What could not be measured, and why."""
    reasons = (
        ("not profiled", found.unprofiled),
        ("not timed without communication", found.not_silenced),
        ("waiting for stragglers counts as exposed", found.straggler_unknown),
    )
    return [f"{what}: {reason}" for what, reason in reasons if reason]
