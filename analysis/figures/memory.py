"""Figures with a row a cell: model state by kind, and the peak of a step by what it is for; predicted below."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analysis.figures.canvas import INK, PAPER, WIDTH, canvas
from analysis.metrics.memory import KINDS, PARTS
from analysis.table.panels import Panel, PanelLayout
from analysis.table.rows import part
from analysis.text.labels import label
from analysis.text.units import is_finite, number
from results.identity import frozen

HATCHES = {"params": "", "master": "....", "grads": "////", "optimizer": "xxxx", "buffers": "++++"}
ROW = 0.28
"""Inches between rows."""
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def state_bars(panel: Panel, layout: PanelLayout) -> Figure | None:
    """Model state per rank by kind, the solid bar measured, the slim one below it predicted; None if not measured."""
    table = panel.table[panel.table["model_state_bytes"].notna()]
    if table.empty:
        return None
    kinds = [kind for kind in KINDS if any((table[f"{kind}{what}_bytes"] > 0).any() for what in ("", "_predicted"))]
    colours = dict(zip(KINDS, sns.color_palette("colorblind", len(KINDS)), strict=True))
    legend = [Patch(facecolor=colours[kind], edgecolor=INK, lw=0.5, hatch=HATCHES[kind], label=kind) for kind in kinds]
    legend.append(Patch(facecolor=PAPER, edgecolor=INK, lw=0.8, label="predicted (below)"))
    rows = Rows(table, layout)
    figure, axes = canvas(rows.height, panel.title, legend, left=rows.left)
    unit = unit_for(panel.peers["model_state_bytes"].max())
    for at, (_, row) in zip(rows.places, table.iterrows(), strict=True):
        measured = [(kind, row[f"{kind}_bytes"] / UNITS[unit]) for kind in kinds]
        _stack(axes, at - 0.12, 0.46, measured, colours, filled=True)
        words = number(row["model_state_bytes"] / UNITS[unit])
        if is_finite(row["model_state_predicted_bytes"]):
            predicted = [(kind, row[f"{kind}_predicted_bytes"] / UNITS[unit]) for kind in kinds]
            _stack(axes, at + 0.24, 0.18, predicted, colours, filled=False)
            words += _difference(row["model_state_bytes"] / row["model_state_predicted_bytes"] - 1)
        else:
            words += ", no prediction"
        rows.say(axes, at, row[["model_state_bytes", "model_state_predicted_bytes"]].max() / UNITS[unit], words)
    rows.frame(axes, f"model state per rank ({unit})", panel.peers["model_state_bytes"].max() / UNITS[unit])
    return figure


PART_WORDS = {
    "state": "model state",
    "gathered": "gathered parameters",
    "communication": "gradients not yet reduced, buckets, buffers",
    "activations": "activations, batch",
    "temporaries": "temporaries",
}
PART_HATCHES = {"state": "", "gathered": "xxxx", "communication": "////", "activations": "....", "temporaries": "++++"}
PREDICTED = {
    "state": ("model_state", "peak_host"),
    "communication": ("working", "handover"),
    "activations": ("activations", "batch"),
    "temporaries": ("temporaries",),
}
"""Columns of what is predicted, by the part that shows them; what is gathered is in ``working``."""


def peak_bars(panel: Panel, layout: PanelLayout) -> Figure | None:
    """The peak memory of a rank during a step by purpose, predicted below; None if not measured."""
    table = panel.table[panel.table["peak_bytes"].notna()]
    if table.empty:
        return None
    colours = dict(zip(PARTS, sns.color_palette("colorblind", len(PARTS)), strict=True))
    legend = [
        Patch(facecolor=colours[name], edgecolor=INK, lw=0.5, hatch=PART_HATCHES[name], label=PART_WORDS[name])
        for name in PARTS
    ]
    legend.append(Patch(facecolor=PAPER, edgecolor=INK, lw=0.8, label="predicted at most (below)"))
    rows = Rows(table, layout)
    figure, axes = canvas(rows.height, panel.title, legend, left=rows.left)
    unit = unit_for(panel.peers["peak_bytes"].max())
    for at, (_, row) in zip(rows.places, table.iterrows(), strict=True):
        _stack(axes, at - 0.12, 0.46, _peak_parts(row, unit), colours, filled=True, hatches=PART_HATCHES)
        predicted, words = row["peak_predicted_bytes"], number(row["peak_bytes"] / UNITS[unit])
        if is_finite(predicted):
            below = [
                (name, row[[f"{column}_predicted_bytes" for column in columns]].sum() / UNITS[unit])
                for name, columns in PREDICTED.items()
            ]
            _stack(axes, at + 0.24, 0.18, below, colours, filled=False, hatches=PART_HATCHES)
            residual = (row["peak_bytes"] - predicted) / UNITS[unit]
            shown = number(abs(residual), 2) if abs(residual) >= 0.0005 * predicted / UNITS[unit] else "0"
            words += f" ({'-' if residual < 0 else '+'}{shown})"
        right = max(row["peak_bytes"], predicted if is_finite(predicted) else 0) / UNITS[unit]
        rows.say(axes, at, right, words)
    rows.frame(axes, f"peak memory per rank ({unit})", panel.peers["peak_bytes"].max() / UNITS[unit])
    return figure


def _peak_parts(row: pd.Series, unit: str) -> list[tuple[str, float]]:
    """Widths by part; what was not taken apart is model state, and the rest of the peak."""
    if is_finite(row["peak_params_bytes"]):
        return [(name, part(row, name) / UNITS[unit]) for name in PARTS]
    state = min(row["model_state_bytes"], row["peak_bytes"])
    return [("state", state / UNITS[unit]), ("temporaries", (row["peak_bytes"] - state) / UNITS[unit])]


def residual_bars(panel: Panel, layout: PanelLayout) -> Figure | None:
    """Measured minus predicted peak, as a share of the prediction; None where either is missing."""
    table = panel.table[panel.table["peak_bytes"].notna() & panel.table["peak_predicted_bytes"].notna()]
    if table.empty:
        return None
    rows = Rows(table, layout)
    figure, axes = canvas(rows.height, panel.title, [], left=rows.left)
    over, under = sns.color_palette("colorblind", 4)[3], sns.color_palette("colorblind", 1)[0]
    lowest = highest = 0.0
    for at, (_, row) in zip(rows.places, table.iterrows(), strict=True):
        share = 100 * (row["peak_bytes"] / row["peak_predicted_bytes"] - 1)
        axes.barh(at, share, 0.6, facecolor=over if share > 0 else under, edgecolor=INK, linewidth=0.5)
        rows.say(axes, at, max(share, 0.0), f"{share:+.1f} %")
        lowest, highest = min(lowest, share), max(highest, share)
    rows.frame(axes, "peak, measured over predicted (%)", max(highest, 1.0))
    inches = WIDTH - rows.left - 0.12
    spread = max(highest - lowest, 1.0)
    axes.set_xlim(lowest - 0.05 * spread, highest + spread * rows.room / (inches - rows.room))
    axes.axvline(0, color=INK, linewidth=1)
    return figure


class Rows:
    """The rows of a panel: one per cell, under a heading for each value of the axis setting."""

    def __init__(self, table: pd.DataFrame, layout: PanelLayout) -> None:
        self.places: list[float] = []
        self.names: list[str] = []
        self.headings: list[tuple[float, str]] = []
        at, last = 0.0, None
        for _, row in table.iterrows():
            value = row[layout.axis]
            if layout.series is not None and frozen(value) != last:
                self.headings.append((at, label(layout.axis, value)))
                at += 0.8
            last = frozen(value)
            name = layout.series or layout.axis
            self.places.append(at)
            simulated = ", simulated" if "simulated" in row["verdicts"] else ""
            self.names.append(label(name, row[name]) + simulated)
            at += 1
        self.span = at
        self.height = max(ROW * at, 0.6)
        self.left = 0.2 + 0.075 * max(map(len, self.names))
        self.longest = self.room = 0.0

    def say(self, axes: Axes, at: float, right: float, words: str) -> None:
        """Writes a row's number behind its bar, which ends at ``right``."""
        axes.annotate(words, (right, at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5)
        self.longest = max(self.longest, right)
        self.room = max(self.room, 0.12 + 0.075 * len(words))

    def frame(self, axes: Axes, words: str, longest: float) -> None:
        """Axes, ticks and headings; leaves room at the right of ``longest`` for each row's number. Called last."""
        axes.set_yticks(self.places, self.names)
        axes.set_ylim(self.span - 0.4, -0.6)
        inches = WIDTH - self.left - 0.12
        axes.set_xlim(0, max(self.longest, longest) * inches / (inches - self.room))
        axes.set_xlabel(words)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        for at, heading in self.headings:
            axes.annotate(heading, (0, at), xytext=(2, 0), textcoords="offset points", va="center", weight="bold")


def _stack(
    axes: Axes,
    at: float,
    thick: float,
    parts: list[tuple[str, float]],
    colours: dict[str, Any],
    *,
    filled: bool,
    hatches: dict[str, str] = HATCHES,
) -> None:
    shown = [(kind, width) for kind, width in parts if width]
    widths = [width for _, width in shown]
    axes.barh(
        [at] * len(shown),
        widths,
        thick,
        left=list(accumulate(widths, initial=0.0))[:-1],
        facecolor=[colours[kind] if filled else PAPER for kind, _ in shown],
        edgecolor=INK,
        linewidth=0.5,
        hatch=[hatches[kind] if filled else "" for kind, _ in shown],
    )


def _difference(residual: float) -> str:
    return "" if abs(residual) < 0.0005 else f" ({100 * residual:+.1f} %)"


def unit_for(largest: float) -> str:
    return "GiB" if largest >= 2**30 else "MiB" if largest >= 2**19 else "KiB"
