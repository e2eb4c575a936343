"""Where scaling efficiency is lost: rows and notes of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.figures.scaling_loss import grown, points
from analysis.metrics.scaling import baselines
from analysis.metrics.scaling_loss import PARTS, profiled_over_timed
from analysis.table.rows import span, value
from analysis.text import units
from results.attribution import Attribution
from results.record import Record, world_size

HOW = "run with measure=full"

STRETCH = 0.1
"""Share by which profiled steps may differ from timed ones before a reader is told."""


@dataclass(frozen=True)
class LossRow:
    """One cell's loss in words, in per cent of a rank's time."""

    knobs: list[str]
    lost: str
    lost_range: str
    parts: list[str]
    """As ``PARTS``; negative where the larger world saves."""
    unexplained: str
    notes: list[str]


def loss_rows(records: Sequence[Record], table: pd.DataFrame, names: Sequence[str]) -> list[LossRow]:
    """A row for each cell that is measured against a smaller world, in the table's order.

    None at all where nobody asked for attributions: ``can_be_told`` then says how to get them.
    """
    if can_be_told(records, table):
        return []
    bases = baselines(list(records))
    found = []
    for index, row in grown(table).iterrows():
        at = int(str(index))
        base = bases[at]
        assert base is not None, "a cell with an efficiency has a baseline"
        low, high = 1 - row["scaling_efficiency_high"], 1 - row["scaling_efficiency_low"]
        ends = pd.Series({"lost_low": low, "lost_high": high})
        found.append(
            LossRow(
                knobs=[value(name, row[name]) for name in names],
                lost=units.percent(1 - row["scaling_efficiency"]),
                lost_range=span(ends, "lost", 100),
                parts=[points(row[f"loss_{part}"]) for part in PARTS],
                unexplained=points(row["loss_unexplained"]),
                notes=notes(records[at], base, row),
            )
        )
    return found


def can_be_told(records: Sequence[Record], table: pd.DataFrame) -> str:
    """How to learn what is lost, where cells lose but no step was attributed; else empty."""
    cells = [records[int(str(index))] for index in grown(table).index]
    missing = cells and all(cell.attribution is None for cell in cells)
    return f"What scaling loses, and to what: {HOW}." if missing else ""


def notes(record: Record, base: Record, row: pd.Series) -> list[str]:
    """Why there are no parts, or what to know of them."""
    baseline = f"its baseline, {units.counted(world_size(base), 'rank')}, was not profiled"
    for side, what in ((record, "not profiled"), (base, baseline)):
        held = side.attribution or Attribution()
        if not held.steps:
            return [f"{what}: {held.unprofiled or HOW}"]
    said = []
    for side, whose in ((record, "its profiled steps"), (base, "its baseline's profiled steps")):
        if abs(math.log(ratio := profiled_over_timed(side))) > math.log1p(STRETCH):
            said.append(f"{whose} took {ratio:.2f} times the timed ones")
    if "instruments_disagree" in row["verdicts"].split(";"):
        said.append("instruments disagree")
    if "oversubscribed" in row["verdicts"].split(";"):
        said.append("oversubscribed: the ranks share cores")
    return said
