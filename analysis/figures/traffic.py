"""Bytes that a rank sends per step, counted and predicted."""

from __future__ import annotations

import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.figures.canvas import INK, PAPER, canvas
from analysis.figures.memory import UNITS, Rows, unit_for
from analysis.table.panels import Panel, PanelLayout
from analysis.text.units import is_finite, number


def sent_bars(panel: Panel, layout: PanelLayout) -> Figure | None:
    """Bytes sent per rank and step, the prediction as a slim bar below; None if nothing was counted."""
    table = panel.table[panel.table["sent_bytes"].notna() & (panel.table["gpus"] > 1)]
    if table.empty or not (table["sent_bytes"] > 0).any():
        return None
    colour = sns.color_palette("colorblind", 3)[2]
    legend = [
        Patch(facecolor=colour, edgecolor=INK, lw=0.5, label="counted"),
        Patch(facecolor=PAPER, edgecolor=INK, lw=0.8, label="predicted (below)"),
    ]
    rows = Rows(table, layout)
    figure, axes = canvas(rows.height, panel.title, legend, left=rows.left)
    largest = float(panel.peers["sent_bytes"].max())
    unit = unit_for(largest)
    for at, (_, row) in zip(rows.places, table.iterrows(), strict=True):
        sent, predicted = row["sent_bytes"] / UNITS[unit], row["sent_predicted_bytes"]
        axes.barh(at - 0.12, sent, 0.46, facecolor=colour, edgecolor=INK, linewidth=0.5)
        right = sent
        if is_finite(predicted):
            axes.barh(at + 0.24, predicted / UNITS[unit], 0.18, facecolor=PAPER, edgecolor=INK, linewidth=0.5)
            right = max(sent, predicted / UNITS[unit])
        rows.say(axes, at, right, number(sent))
    rows.frame(axes, f"sent per rank and step ({unit})", largest / UNITS[unit])
    return figure
