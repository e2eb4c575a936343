"""Overlap on against off, each cell with the one that differs in nothing else: rows of the report, and the figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import units
from analysis.canvas import FAINT, INK, PAPER, canvas, save, style
from analysis.cells import identity, knobs
from analysis.compare import MARGIN, Outcome, Pair, compare, verdict_words
from analysis.layout import describe, drawn, panels
from analysis.load import each_cell, varying
from analysis.plots import Plot
from analysis.rows import value
from analysis.scaling import is_ranked
from analysis.stats import step_time_s
from bench.record import Record

TITLE = "Overlap on against off"
DEFINITION = (
    "Step time with overlap over that without, the median of the rounds' ratios; left of 1 overlap pays. Within the "
    f"band, ±{100 * MARGIN:g} %, they count as the same. Hollow: oversubscribed. Bars are bootstrap intervals over "
    "launches, at the level that so many launches attain."
)
MARKS = {"faster": "<", "slower": ">", "same": "s", "cannot tell": "o"}
ROW = 0.24
"""Inches between rows."""
MOST_LETTERS = 28
"""Of a row's name; what is longer stands above a panel of its own."""


@dataclass(frozen=True)
class Overlapped:
    """One pair of cells."""

    index: int
    """Of the cell with overlap, in the table."""
    outcome: Outcome
    """With overlap over without."""


@dataclass(frozen=True)
class OverlapRow:
    """One pair in words."""

    knobs: list[str]
    off_ms: str
    on_ms: str
    ratio: str
    ratio_range: str
    verdict: str


def overlapped(records: Sequence[Record], table: pd.DataFrame) -> list[Overlapped]:
    """The pairs of cells that were both timed, in the table's order; cells of one sweep are paired."""
    without: dict[object, Record] = {}
    for record in records:
        if record.config.get("overlap") is False and is_ranked(record):
            without[_key(record)] = record
    found = []
    for index in map(int, map(str, table.index)):
        record = records[index]
        if record.config.get("overlap") is True and is_ranked(record) and (other := without.get(_key(record))):
            found.append(Overlapped(index, compare(Pair(other, record), MARGIN)))
    return found


def _key(record: Record) -> object:
    return record.sweep_id, identity(knobs(record), without=["overlap"])


def overlap_rows(found: Sequence[Overlapped], table: pd.DataFrame, names: Sequence[str]) -> list[OverlapRow]:
    """A row a pair; ``names`` are its knobs without overlap."""
    held = dict(each_cell(table))
    return [
        OverlapRow(
            knobs=[value(name, held[entry.index][name]) for name in names],
            off_ms=_step_ms(entry.outcome.pair.first),
            on_ms=_step_ms(entry.outcome.pair.second),
            ratio=units.number(entry.outcome.step.value),
            ratio_range=_span(entry.outcome),
            verdict=verdict_words(entry.outcome),
        )
        for entry in found
    ]


def _step_ms(record: Record) -> str:
    return units.ms(float(np.median([step_time_s(launch) for launch in record.launches])))


def _span(outcome: Outcome) -> str:
    low, high = outcome.step.low, outcome.step.high
    return f"{units.number(low)} to {units.number(high)}" if units.known(low) else ""


def draw(found: Sequence[Overlapped], table: pd.DataFrame, folder: Path) -> list[Plot]:
    """A row a pair, in as many panels as keep the names of rows short; nothing where there is none."""
    if not found:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    entries = {entry.index: entry for entry in found}
    part = table.loc[list(entries)]
    names = [name for name in varying(part) if name != "overlap"] or ["stage", "gpus"]
    cut = next(cut for cut in range(len(names)) if cut == len(names) - 1 or _longest(part, names[cut:]) <= MOST_LETTERS)
    split = panels(part, names[:cut])
    with style():
        drawings = []
        for place in drawn(split):
            shown = [entries[int(str(index))] for index in place.table.index]
            figure = panel(shown, place.table, names[cut:], place.title)
            drawings.append(save(figure, folder / f"overlap{place.slug}.png", place.title, f"{TITLE}. {DEFINITION}"))
    return [Plot(TITLE, DEFINITION, "time", drawings, len(split) - len(drawn(split)))]


def _longest(table: pd.DataFrame, names: list[str]) -> int:
    return max(len(describe(row, names)) for _, row in each_cell(table))


def panel(found: Sequence[Overlapped], table: pd.DataFrame, names: list[str], title: str) -> Figure:
    """Ratios with their intervals on a common axis."""
    words = [describe(row, names) for _, row in each_cell(table)]
    shown = [verdict for verdict in MARKS if any(entry.outcome.verdict == verdict for entry in found)]
    legend = [
        Line2D([], [], color=INK, marker=MARKS[verdict], ls="", markersize=6, label=f"on is {verdict}")
        if verdict in ("faster", "slower", "same")
        else Line2D([], [], color=INK, marker=MARKS[verdict], ls="", markersize=6, label=verdict)
        for verdict in shown
    ]
    figure, axes = canvas(max(0.6, ROW * len(found)), title, legend, left=0.2 + 0.075 * max(map(len, words)))
    axes.axvspan(1 / (1 + MARGIN), 1 + MARGIN, color=FAINT, linewidth=0, zorder=0)
    axes.axvline(1, color=INK, linewidth=1, zorder=1)
    for at, entry in enumerate(found):
        step = entry.outcome.step
        crowded = "oversubscribed" in table.loc[entry.index]["verdicts"].split(";")
        axes.errorbar(
            [step.value],
            [at],
            xerr=np.nan_to_num(np.array([[step.value - step.low], [step.high - step.value]])),
            fmt=MARKS.get(entry.outcome.verdict, "o"),
            color=INK,
            markerfacecolor=PAPER if crowded else INK,
            markersize=6,
            elinewidth=1.2,
            capsize=2.5,
            zorder=3,
        )
    axes.set_yticks(range(len(found)), words)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlabel("step time, on / off")
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return figure
