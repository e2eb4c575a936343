"""The first picture of a report: per world size, throughput of each setting with its interval, and its peak memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.canvas import INK, PAPER, pair
from analysis.figures.curves import THROUGHPUT, unit_of
from analysis.figures.memory import UNITS, unit_for
from analysis.table.frame import each_cell
from analysis.table.panels import Panel, PanelLayout
from analysis.text.labels import label
from analysis.text.units import is_finite, number, short, size
from results.verdicts import MOMENTARY

TITLE = "Throughput and peak memory"
DEFINITION = (
    "Throughput of all ranks with its interval over launches; peak memory of the rank with the most, with its limit. "
    "Hollow: oversubscribed. Cross: disturbed while it was timed."
)
ROW = 0.27
"""Inches between rows."""
MOST_LETTERS = 18
"""Of the name of a row."""
FARTHEST_LIMIT = 3.0
"""Times the largest peak beyond which a memory limit is written rather than drawn: it would flatten all bars."""


def overview(panel: Panel, layout: PanelLayout, limits: Mapping[int, float | None]) -> Figure | None:
    """One world size: a row per setting; ``limits`` are bytes per rank by the table's index. None without times."""
    table = panel.table[panel.table["throughput_per_s"].notna()]
    if table.empty:
        return None
    name = layout.series or layout.axis
    names = [shortened(label(name, row[name])) for _, row in each_cell(table)]
    left = 0.16 + 0.075 * max(map(len, names))
    figure, speed, memory = pair(max(ROW * len(table) + 0.05, 0.5), panel.title, left)
    places = list(range(len(table)))
    colours = sns.color_palette("colorblind", 2)
    alike = panel.peers[panel.peers["gpus"].isin(table["gpus"])]
    _throughput(speed, table, colours[0], highest=_highest(alike), scale=THROUGHPUT.scale(_highest(panel.peers)))
    _memory(memory, table, colours[1], [limits.get(int(at)) for at in table.index], float(alike["peak_bytes"].max()))
    for axes in (speed, memory):
        axes.set_yticks(places, names if axes is speed else [""] * len(places))
        axes.set_ylim(len(places) - 0.45, -0.55)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    return figure


def shortened(name: str) -> str:
    """A row's name, cut where it would leave no room for bars."""
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"


def _highest(table: pd.DataFrame) -> float:
    return float(np.nanmax(table[["throughput_per_s", "throughput_per_s_high"]].to_numpy(dtype=float)))


def _throughput(axes: Axes, table: pd.DataFrame, colour: Any, *, highest: float, scale: tuple[str, float]) -> None:
    """``highest`` and ``scale`` are those of all panels of the same world size, and of all panels."""
    name, factor = scale
    for at, (_, row) in enumerate(each_cell(table)):
        value, low, high = (row[f"throughput_per_s{end}"] * factor for end in ("", "_low", "_high"))
        verdicts = set(row["verdicts"].split(";"))
        _bar(axes, at, value, colour, hollow="oversubscribed" in verdicts)
        if is_finite(low):
            reach = [[value - low], [high - value]]
            axes.errorbar([value], [at], xerr=reach, fmt="none", ecolor=INK, elinewidth=1.2, capsize=2.5, zorder=4)
        if verdicts & set(MOMENTARY):
            axes.plot([value], [at], "x", color=INK, markersize=7, markeredgewidth=0.9, zorder=5)
        _words(axes, at, high if is_finite(high) else value, short(value))
    axes.set_xlim(0, highest * factor * 1.42)
    axes.set_xlabel(THROUGHPUT.axis.format(scale=name, unit=unit_of(table)).replace(" per second", "/s"))


def _memory(axes: Axes, table: pd.DataFrame, colour: Any, limits: list[float | None], top: float) -> None:
    """``top``: bytes, the largest peak of all panels of the same world size."""
    if not table["peak_bytes"].notna().any():
        axes.set_xlabel("peak memory: not measured")
        axes.set_xticks([])
        return
    unit = unit_for(top)
    for at, (_, row) in enumerate(each_cell(table)):
        if is_finite(row["peak_bytes"]):
            peak = row["peak_bytes"] / UNITS[unit]
            _bar(axes, at, peak, colour, hollow=False)
            _words(axes, at, peak, number(peak))
    limit = min((one for one in limits if one), default=None)
    words = f"peak memory ({unit})"
    reach = top * 1.42
    if limit and limit <= FARTHEST_LIMIT * top:
        axes.axvline(limit / UNITS[unit], color=INK, linewidth=1.4, dashes=(4, 2), zorder=4)
        words += f"\ndashed: limit {size(limit)}"
        reach = max(reach, limit * 1.05)
    elif limit:
        words += f"\nlimit: {size(limit)}"
    axes.set_xlim(0, reach / UNITS[unit])
    axes.set_xlabel(words)


def _bar(axes: Axes, at: int, value: float, colour: Any, *, hollow: bool) -> None:
    face = PAPER if hollow else colour
    axes.barh(at, value, 0.62, facecolor=face, edgecolor=colour if hollow else INK, linewidth=1.2 if hollow else 0.5)


def _words(axes: Axes, at: int, right: float, words: str) -> None:
    axes.annotate(words, (right, at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5)
