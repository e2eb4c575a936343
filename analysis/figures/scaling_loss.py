"""The parts of scaling loss as a figure."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.figures.canvas import INK, PAPER, WIDTH, canvas
from analysis.figures.memory import Rows
from analysis.figures.step_parts import looks
from analysis.metrics.step_parts import PARTS, WORDS
from analysis.table.panels import Panel, PanelLayout
from analysis.text import units

UNEXPLAINED = {"facecolor": PAPER, "edgecolor": INK, "lw": 0.5, "hatch": "oo"}


def loss_bars(panel: Panel, layout: PanelLayout) -> Figure | None:
    """The parts of each cell's loss, what is lost to the right of zero and what is saved to the left; None without."""
    table = panel.table[panel.table["efficiency_loss_compute"].notna()]
    if table.empty:
        return None
    parts = [part for part in PARTS if table[f"efficiency_loss_{part}"].notna().any()]
    shown = {**{part: looks(part) for part in parts}, "unexplained": UNEXPLAINED}
    rows = Rows(table, layout)
    legend = [Patch(label=WORDS.get(part, part), **look) for part, look in shown.items()]
    figure, axes = canvas(rows.height, panel.title, legend, left=rows.left)
    longest = deepest = 0.0
    for at, (_, row) in zip(rows.places, table.iterrows(), strict=True):
        right = left = 0.0
        for part, look in shown.items():
            share = row[f"efficiency_loss_{part}"]
            width = 100 * share if units.is_finite(share) else 0.0  # a part that timed steps do not have
            axes.barh(at, width, 0.6, left=right if width > 0 else left, **look)
            right, left = right + max(width, 0), left + min(width, 0)
        rows.say(axes, at, right, f"{units.percent(1 - row['scaling_efficiency'])} lost")
        longest, deepest = max(longest, right), min(deepest, left)
    rows.frame(axes, "share of a rank's time (%)", longest)
    inches = WIDTH - rows.left - 0.12
    axes.set_xlim(deepest * 1.05, (longest * inches - deepest * 1.05 * rows.room) / (inches - rows.room))
    axes.axvline(0, color=INK, linewidth=1)
    return figure
