"""Overlap of communication with compute as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.advice.overlap import Overlapped
from analysis.comparison.compare import MARGIN
from analysis.figures.canvas import FAINT, INK, PAPER, canvas, save, style
from analysis.figures.plot import Plot
from analysis.table.frame import each_cell, varying
from analysis.table.panels import describe, drawn, panels

TITLE = "Overlap on compared with off"

DEFINITION = (
    "Step time with overlap over that without: median of the rounds' ratios with its interval; below 1 is faster. "
    f"Band: ±{100 * MARGIN:g} %, the same. Hollow: oversubscribed."
)

MARKS = {"faster": "<", "slower": ">", "same": "s", "cannot tell": "o"}

ROW = 0.24
"""Inches between rows."""

MOST_LETTERS = 28
"""Of a row's name; what is longer stands above a panel of its own."""


def draw(pairs: Sequence[Overlapped], table: pd.DataFrame, folder: Path) -> list[Plot]:
    """A row a pair, in as many panels as keep the names of rows short; nothing where there is none."""
    if not pairs:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    entries = {entry.index: entry for entry in pairs}
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
    return [Plot(TITLE, DEFINITION, "overlap", drawings, len(split) - len(drawn(split)))]


def _longest(table: pd.DataFrame, names: list[str]) -> int:
    return max(len(describe(row, names)) for _, row in each_cell(table))


def panel(pairs: Sequence[Overlapped], table: pd.DataFrame, names: list[str], title: str) -> Figure:
    """Ratios with their intervals on a common axis."""
    words = [describe(row, names) for _, row in each_cell(table)]
    shown = [verdict for verdict in MARKS if any(entry.outcome.verdict == verdict for entry in pairs)]
    legend = [
        Line2D([], [], color=INK, marker=MARKS[verdict], ls="", markersize=6, label=f"on is {verdict}")
        if verdict in ("faster", "slower", "same")
        else Line2D([], [], color=INK, marker=MARKS[verdict], ls="", markersize=6, label=verdict)
        for verdict in shown
    ]
    figure, axes = canvas(max(0.6, ROW * len(pairs)), title, legend, left=0.2 + 0.075 * max(map(len, words)))
    axes.axvspan(1 / (1 + MARGIN), 1 + MARGIN, color=FAINT, linewidth=0, zorder=0)
    axes.axvline(1, color=INK, linewidth=1, zorder=1)
    for at, entry in enumerate(pairs):
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
    axes.set_yticks(range(len(pairs)), words)
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.set_xlabel("step time, on / off")
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return figure
