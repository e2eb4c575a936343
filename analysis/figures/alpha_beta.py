"""The figure of collectives by size: each kind's time, and the line through it."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from analysis.advice.alpha_beta import Fit, benchmarks, bus_factor, fits
from analysis.figures.canvas import PAPER, canvas, save, style
from analysis.figures.curves import MARKERS
from analysis.figures.plot import Plot
from analysis.table.panels import drawn
from analysis.text import units
from results.record import Record
from results.verdicts import MOMENTARY

TITLE = "Bus bandwidth by size"
DEFINITION = (
    "Bus bandwidth over the size of the whole array, from the slowest rank's time, with its interval over launches. "
    "Line: t = α + β·S where it was fitted; hollow points are not on it."
)


MOST_TICKS = 5


def draw(records: Sequence[Record], table: pd.DataFrame, folder: Path) -> list[Plot]:
    """A panel for each cell that timed collectives, as PNG files in ``folder``; nothing where there is none."""
    cells = list(benchmarks(records, table))
    if not cells:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    with style():
        drawings = [
            save(
                panel(fits(record), flagged(name, record)),
                folder / f"collectives-{at + 1:02}.png",
                name,
                f"{TITLE}. {DEFINITION}",
            )
            for at, (name, record) in enumerate(drawn(cells))
        ]
    return [Plot(TITLE, DEFINITION, "collectives", drawings, len(cells) - len(drawings))]


def flagged(name: str, record: Record) -> str:
    """A cell's name, with what a reader of its times must know."""
    notes = [units.spoken(verdict) for verdict in record.verdicts if verdict in ("oversubscribed", *MOMENTARY)]
    return " · ".join([name, *notes]) if name else ", ".join(notes)


def panel(shown: list[Fit], title: str) -> Figure:
    """One cell: both axes logarithmic."""
    colours = sns.color_palette("colorblind", len(shown))
    legend = [
        Line2D([], [], color=colours[at], marker=MARKERS[at], markersize=5, label=fit.kind.replace("_", "-"))
        for at, fit in enumerate(shown)
    ]
    figure, axes = canvas(2.8, title, legend)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for at, fit in enumerate(shown):
        _line(axes, fit, colours[at])
        _marks(axes, fit, colours[at], MARKERS[at])
    axes.set_xlabel("size of the whole array")
    axes.set_ylabel("bus bandwidth (GB/s)")
    sizes = sorted({point.size_bytes for fit in shown for point in fit.points})
    at_sizes = sizes[:: max(1, -(-len(sizes) // MOST_TICKS))]
    axes.set_xticks(at_sizes, [units.size(size).replace(".00 ", " ").replace(".0 ", " ") for size in at_sizes])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    if high < 100 * low:  # else there may be not one number
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return figure


def _line(axes: Axes, fit: Fit, colour: tuple[float, float, float]) -> None:
    if fit.line is None:
        return
    sizes = np.geomspace(fit.points[0].size_bytes, fit.points[-1].size_bytes, 60)
    times_s = fit.line.alpha_s + sizes * fit.line.s_per_byte
    bandwidths = sizes / np.where(times_s > 0, times_s, nan) * bus_factor(fit.kind, fit.ranks) / 1e9
    axes.plot(sizes, bandwidths, color=colour, linewidth=1.1)


def _marks(axes: Axes, fit: Fit, colour: tuple[float, float, float], marker: str) -> None:
    for point in fit.points:
        time, middle = point.time_s, point.bus_bandwidth / 1e9
        low, high = middle * time.value / time.high, middle * time.value / time.low
        reach = np.nan_to_num(np.array([[middle - low], [high - middle]]))
        axes.errorbar(
            [point.size_bytes],
            [middle],
            yerr=reach,
            fmt=marker,
            color=colour,
            markerfacecolor=PAPER if point.is_off else colour,
            markersize=5,
            markeredgewidth=1.2,
            elinewidth=1.2,
            capsize=2,
            zorder=3,
        )
