"""What a step is made of, as a person reads it: the rows of the report's section, and the figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis import units
from analysis.attribution import PARTS
from analysis.bars import Rows
from analysis.canvas import INK, PAPER, canvas
from analysis.layout import Layout, Panel
from analysis.load import each_cell
from analysis.rows import value
from bench.record import Attribution, Record, Spread

WORDS = {"exposed": "exposed communication", "straggler": "wait for stragglers", "data": "making the batch"}
HATCHES = {"optimizer": "xxxx", "exposed": "////", "straggler": "....", "host": "----", "data": "++++"}
SCALES = (("µs", 1e6), ("ms", 1e3), ("s", 1.0))


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


def looks(part: str) -> dict[str, Any]:
    """How a part is filled; what is lost to communication stands out, also without colour."""
    colours = dict(zip(PARTS, sns.color_palette("colorblind", len(PARTS)), strict=True))
    face = PAPER if part == "exposed" else colours[part]
    return {"facecolor": face, "edgecolor": INK, "lw": 0.5, "hatch": HATCHES.get(part)}


def part_bars(panel: Panel, layout: Layout) -> Figure | None:
    """The parts of a step, stacked; None if no cell's were measured."""
    table = panel.table[panel.table["compute_part_s"].notna()]
    if table.empty:
        return None
    shares = [f"{part}_part_s" for part in PARTS]
    longest_s = float(panel.peers[shares].sum(axis=1).max())
    scale, factor = next(((name, by) for name, by in SCALES if longest_s * by < 2000), SCALES[-1])
    rows = Rows(table, layout)
    legend = [Patch(label=WORDS.get(part, part), **looks(part)) for part in PARTS]
    figure, axes = canvas(rows.height, panel.title, legend, left=rows.left)
    for at, (_, row) in zip(rows.places, table.iterrows(), strict=True):
        left = 0.0
        for part in PARTS:
            width = row[f"{part}_part_s"] * factor
            axes.barh(at, width, 0.6, left=left, **looks(part))
            left += width
        words = units.number(left)
        if units.known(row["overlap_ratio"]):
            words += f", overlap {units.percent(row['overlap_ratio'])}"
        if "instruments_disagree" in row["verdicts"].split(";"):
            words += ", instruments disagree"
        rows.say(axes, at, left, words)
    rows.frame(axes, f"profiled step ({scale})", longest_s * factor)
    return figure
