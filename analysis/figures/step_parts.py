"""The parts of a step as a figure."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.figures.canvas import INK, PAPER, SCALES, canvas
from analysis.figures.memory import Rows
from analysis.metrics.step_parts import PARTS, WORDS
from analysis.table.panels import Panel, PanelLayout
from analysis.text import units

COLOURS = {
    "compute": "#d7dce3",
    "optimizer": "#a9b2bf",
    "exposed": "#d55e00",
    "straggler": "#f0c19a",
    "host": "#eef0f3",
    "data": PAPER,
}
"""Exposed communication in the one strong colour, which is dark in print; the rest pale."""
HATCHES = {"optimizer": "xxxx", "straggler": "....", "host": "----", "data": "++++"}


def looks(part: str) -> dict[str, Any]:
    """The fill of a part; exposed communication is hatched, to be visible in print."""
    return {"facecolor": COLOURS[part], "edgecolor": INK, "lw": 0.5, "hatch": HATCHES.get(part)}


def part_bars(panel: Panel, layout: PanelLayout) -> Figure | None:
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
        if units.is_finite(row["overlap_ratio"]):
            words += f", overlap {units.percent(row['overlap_ratio'])}"
        if "instruments_disagree" in row["verdicts"].split(";"):
            words += " *"  # longer words would leave the bars no room
        rows.say(axes, at, left, words)
    rows.frame(axes, f"profiled step ({scale})", longest_s * factor)
    return figure
