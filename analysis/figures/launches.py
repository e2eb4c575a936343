"""Every launch as a dot: throughput relative to the fastest setting of the same world size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.canvas import INK, canvas
from analysis.figures.memory import Rows
from analysis.table.frame import each_cell
from analysis.table.panels import Panel, PanelLayout
from analysis.text.units import number

TITLE = "Every launch"
DEFINITION = "Throughput of each launch, over the median of the fastest setting of the same world size."


def launch_dots(panel: Panel, layout: PanelLayout, throughputs: Mapping[int, Sequence[float]]) -> Figure | None:
    """A row per configuration; ``throughputs`` are those of its launches, by the table's index. None without any."""
    table = panel.table[panel.table["throughput_per_s"].notna()]
    if table.empty or max(len(throughputs[int(at)]) for at in table.index) < 2:
        return None
    fastest = table.groupby("gpus")["throughput_per_s"].transform("max")
    rows = Rows(table, layout)
    colour = sns.color_palette("colorblind", 1)[0]
    legend = [
        Line2D([], [], color=colour, marker="o", ls="", markersize=4, label="launch"),
        Line2D([], [], color=INK, marker="|", ls="", markersize=9, markeredgewidth=1.6, label="median"),
    ]
    figure, axes = canvas(rows.height, panel.title, legend, left=rows.left)
    shown = [
        [value / best for value in throughputs[int(index)]]
        for index, best in zip(table.index, fastest.tolist(), strict=True)
    ]
    right = max(1.0, *(max(ratios) for ratios in shown))
    for at, (_, row), ratios, best in zip(rows.places, each_cell(table), shown, fastest.tolist(), strict=True):
        median = row["throughput_per_s"] / best
        axes.plot(ratios, [at] * len(ratios), "o", color=colour, markersize=4, alpha=0.7, zorder=3)
        axes.plot([median], [at], "|", color=INK, markersize=12, markeredgewidth=1.6, zorder=4)
        rows.say(axes, at, right, number(median))
    rows.frame(axes, "throughput relative to the fastest", right)
    axes.axvline(1, color=INK, linewidth=0.9, dashes=(5, 3), zorder=1)
    return figure
