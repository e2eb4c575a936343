"""Step time by bucket size as a person reads it: the rows of the report's section, its advice, and the figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.advice.bucket_size import LEAST_R2, Curve, Point
from analysis.figures.canvas import INK, PAPER, SCALES, canvas, save, style
from analysis.figures.catalogue import INTERVAL
from analysis.figures.plot import Plot
from analysis.table.panels import drawn
from results.verdicts import MOMENTARY

TITLE = "Step time by bucket size"

DEFINITION = (
    "Diamonds: not measurably slower than the fastest, by paired ratio. Dashed: fitted line, with its knee. Hollow: "
    "oversubscribed. " + INTERVAL
)


def draw(curves: Sequence[Curve], table: pd.DataFrame, folder: Path) -> list[Plot]:
    """A panel for each curve, as PNG files in ``folder``; nothing where there is none."""
    if not curves:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    with style():
        drawings = [
            save(panel(curve, table), folder / f"buckets-{at + 1:02}.png", curve.title, f"{TITLE}. {DEFINITION}")
            for at, curve in enumerate(drawn(curves))
        ]
    return [Plot(TITLE, DEFINITION, "bucket-size", drawings, len(curves) - len(drawings))]


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
    if set(verdicts) & set(MOMENTARY):
        axes.plot([point.bucket_mb], [middle], "x", color=INK, markersize=10, markeredgewidth=0.9, zorder=4)
