"""Step time by bucket size as a person reads it: the rows of the report's section, its advice, and the figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import units
from analysis.buckets import LEAST_R2, Curve, Point
from analysis.canvas import INK, PAPER, canvas, save, style
from analysis.flags import DISTURBANCES
from analysis.layout import drawn
from analysis.load import each_cell
from analysis.plots import INTERVAL, Plot
from analysis.rows import value
from analysis.stats import Interval
from analysis.steps import SCALES

TITLE = "Step time by bucket size"
DEFINITION = (
    "Diamonds cannot be told from the fastest size, paired by rounds; circles are slower. The dashed line is "
    "T = T0 + α·(buckets) + β·(bytes of the last bucket) where it was fitted, and its knee where that lies within what "
    "was measured. Hollow: oversubscribed. " + INTERVAL
)


@dataclass(frozen=True)
class BucketRow:
    """One bucket size of one setting, in words."""

    knobs: list[str]
    buckets: str
    step_ms: str
    step_range: str
    behind: str
    behind_range: str
    tied: str


def bucket_rows(found: Sequence[Curve], table: pd.DataFrame, names: Sequence[str]) -> list[BucketRow]:
    """A row for each size of each curve."""
    held = dict(each_cell(table))
    return [
        BucketRow(
            knobs=[value(name, held[point.index][name]) for name in names],
            buckets=str(point.buckets),
            step_ms=units.ms(point.step.value),
            step_range=_span(point.step, 1e3),
            behind=units.number(point.behind.value),
            behind_range=_span(point.behind, 1) if point is not curve.best else "",
            tied="best" if point is curve.best else "tied" if point.tied else "slower" if _measured(point) else "",
        )
        for curve in found
        for point in curve.points
    ]


def _measured(point: Point) -> bool:
    return units.known(point.behind.low)


def _span(interval: Interval, factor: float) -> str:
    if not units.known(interval.low):
        return ""
    return f"{units.number(interval.low * factor)} to {units.number(interval.high * factor)}"


def advice(found: Sequence[Curve]) -> list[str]:
    """For each curve the sizes to use, the line and the knee, in words."""
    return [f"{curve.title}: {_use(curve)} {_line(curve)}".removeprefix(": ") for curve in found]


def _use(curve: Curve) -> str:
    tied = [point for point in curve.points if point.tied]
    best = curve.best
    if not _measured(best):
        return f"fastest with {best.bucket_mb:g} MiB; one launch cannot tell whether others are slower."
    others = [point for point in curve.points if point is not best]
    told = [point.behind for point in others if _measured(point)]
    if not told:
        return f"fastest with {best.bucket_mb:g} MiB; one launch of each other size cannot tell whether it is slower."
    level = min(told, key=lambda interval: interval.level).level_text()
    if len(told) < len(others):
        untold = ", ".join(f"{point.bucket_mb:g}" for point in others if not _measured(point))
        level += f"; of {untold} MiB one launch cannot tell"
    if len(tied) == 1:
        return f"use {best.bucket_mb:g} MiB: every other size is slower, at {level}."
    if len(tied) == len(curve.points):
        return f"any of these sizes: none can be told from the fastest, {best.bucket_mb:g} MiB, at {level}."
    words = ", ".join(f"{point.bucket_mb:g}" for point in tied)
    return f"use any of {words} MiB: none of them can be told from the fastest, {best.bucket_mb:g} MiB, at {level}."


def _line(curve: Curve) -> str:
    if curve.line is None:
        return f"No line: {curve.why_no_line}."
    line = curve.line
    said = f"Line: {units.ms(line.start_s)} ms + {units.ms(line.alpha_s)} ms a bucket"
    if line.beta_s_per_byte:
        said += f" + {units.ms(line.beta_s_per_byte * 2**20)} ms a MiB of the last one"
    said += f", R² {max(line.r2, 0):.2f}."
    if curve.knee is None:
        return f"{said} No knee: {curve.why_no_knee}."
    return f"{said} Knee at {units.size(curve.knee.value)}{_ends(curve)}."


def _ends(curve: Curve) -> str:
    """The knee's interval, as far as sizes were measured."""
    assert curve.knee is not None
    knee = curve.knee
    if not (isfinite(knee.low) or isfinite(knee.high)):
        return ""
    smallest, largest = (curve.points[at].bucket_mb * 2**20 for at in (0, -1))
    low = units.size(knee.low) if knee.low >= smallest else f"below {units.size(smallest)}"
    high = units.size(knee.high) if knee.high <= largest else f"beyond {units.size(largest)}"
    return f" ({low} to {high})"


def draw(found: Sequence[Curve], table: pd.DataFrame, folder: Path) -> list[Plot]:
    """A panel for each curve, as PNG files in ``folder``; nothing where there is none."""
    if not found:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    with style():
        drawings = [
            save(panel(curve, table), folder / f"buckets-{at + 1:02}.png", curve.title, f"{TITLE}. {DEFINITION}")
            for at, curve in enumerate(drawn(found))
        ]
    return [Plot(TITLE, DEFINITION, "time", drawings, len(found) - len(drawings))]


def panel(curve: Curve, table: pd.DataFrame) -> Figure:
    """One curve; bucket sizes on a logarithmic axis."""
    legend = [
        Line2D([], [], color=INK, marker="D", ls="", markersize=6, label="tied with the fastest"),
        Line2D([], [], color=INK, marker="o", ls="", markersize=5, label="slower"),
    ]
    line = curve.line if curve.line and curve.line.r2 >= LEAST_R2 else None
    if line:
        legend.append(Line2D([], [], color=INK, linewidth=1.1, dashes=(5, 2), label=f"line, R² {line.r2:.2f}"))
    figure, axes = canvas(2.4, curve.title, legend)
    axes.set_xscale("log", base=2)
    top_s = max(np.nanmax([point.step.value, point.step.high]) for point in curve.points)
    scale, factor = next(((name, by) for name, by in SCALES if top_s * by < 2000), SCALES[-1])
    for point in curve.points:
        _mark(axes, point, factor, table.loc[point.index]["verdicts"].split(";"))
    if line:
        places = [point.bucket_mb for point in curve.points]
        heights = [line.at(point.buckets, point.last_bytes) * factor for point in curve.points]
        axes.plot(places, heights, color=INK, linewidth=1.1, dashes=(5, 2), zorder=2)
    if curve.knee:
        axes.axvline(curve.knee.value / 2**20, color=INK, linewidth=1, ls=":", zorder=1)
        where = (curve.knee.value / 2**20, 0.03)
        axes.annotate("knee", where, xytext=(3, 0), xycoords=axes.get_xaxis_transform(), textcoords="offset points")
    axes.set_ylim(0, top_s * factor * 1.1)
    axes.set_xlabel("bucket size (MiB)")
    axes.set_ylabel(f"step time ({scale})")
    axes.minorticks_off()
    axes.set_xticks(*zip(*[(point.bucket_mb, f"{point.bucket_mb:g}") for point in curve.points], strict=True))
    return figure


def _mark(axes: Axes, point: Point, factor: float, verdicts: Sequence[str]) -> None:
    middle, low, high = (end * factor for end in (point.step.value, point.step.low, point.step.high))
    axes.errorbar(
        [point.bucket_mb],
        [middle],
        yerr=np.nan_to_num(np.array([[middle - low], [high - middle]])),
        fmt="D" if point.tied else "o",
        color=INK,
        markerfacecolor=PAPER if "oversubscribed" in verdicts else INK,
        markersize=6 if point.tied else 5,
        elinewidth=1.2,
        capsize=2.5,
        zorder=3,
    )
    if set(verdicts) & set(DISTURBANCES):
        axes.plot([point.bucket_mb], [middle], "x", color=INK, markersize=10, markeredgewidth=0.9, zorder=4)
