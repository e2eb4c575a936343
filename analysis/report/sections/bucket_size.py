"""Step time by bucket size: a row per size, the sizes to use, the fitted line and its knee."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from analysis.advice.bucket_size import Curve, Point
from analysis.report.model import section as model
from analysis.report.model.content import DEFINITIONS, Content
from analysis.report.model.section import Section, Value, numbers, settings, table, words
from analysis.table.rows import headings, setting_names
from analysis.text import units


def section(content: Content, curves: Sequence[Curve]) -> Section:
    """A row for each size of each curve."""
    names = [*(name for name in setting_names(content.table) if name != "bucket_mb"), "bucket_mb"]
    columns = [
        *settings(headings(names)),
        *numbers("buckets per step", "step (ms)", "relative to the fastest"),
        *words("verdict"),
    ]
    rows = [
        [*content.settings(content.measured[point.index], names), *row(curve, point)]
        for curve in curves
        for point in curve.points
    ]
    lines = advice(curves)
    return Section(
        "Bucket size",
        "bucket-size",
        lists=[model.Points([model.ListItem(line) for line in lines])] if lines else [],
        tables=table(columns, rows),
        folded="details",
        notes=[
            "Relative to the fastest: median of the rounds' ratios, with its interval. A size is tied unless its whole "
            "interval lies above 1; of tied sizes the smallest needs no more memory.",
            "Line: T = T0 + α·(buckets) + β·(bytes of the last bucket), least squared relative errors. " + DEFINITIONS,
        ],
    )


def row(curve: Curve, point: Point) -> list[Value]:
    is_best = point is curve.best
    verdict = "best" if is_best else "tied" if point.tied else "slower" if _measured(point) else ""
    behind = "" if is_best else units.interval(point.behind.low, point.behind.high)
    return [
        Value(str(point.buckets)),
        Value(units.ms(point.step.value), units.interval(point.step.low, point.step.high, 1e3)),
        Value(units.number(point.behind.value), behind),
        Value(verdict),
    ]


def _measured(point: Point) -> bool:
    return units.is_finite(point.behind.low)


def advice(curves: Sequence[Curve]) -> list[str]:
    """For each curve the sizes to use, the line and the knee, in words."""
    return [f"{curve.title}: {_use(curve)} {_line(curve)}".removeprefix(": ") for curve in curves]


def _use(curve: Curve) -> str:
    tied = [point for point in curve.points if point.tied]
    best = curve.best
    if not _measured(best):
        return f"fastest with {best.bucket_mb:g} MiB; one launch is too few to compare it with others."
    others = [point for point in curve.points if point is not best]
    compared = [point.behind for point in others if _measured(point)]
    if not compared:
        return f"fastest with {best.bucket_mb:g} MiB; one launch of each other size is too few to compare."
    level = min(compared, key=lambda interval: interval.level).level_text()
    if len(compared) < len(others):
        left_out = ", ".join(f"{point.bucket_mb:g}" for point in others if not _measured(point))
        level += f"; one launch of {left_out} MiB is too few to compare"
    if len(tied) == 1:
        return f"use {best.bucket_mb:g} MiB: every other size is slower, at {level}."
    if len(tied) == len(curve.points):
        return f"any of these sizes: none is measurably slower than the fastest, {best.bucket_mb:g} MiB, at {level}."
    sizes = ", ".join(f"{point.bucket_mb:g}" for point in tied)
    return f"use any of {sizes} MiB: none is measurably slower than the fastest, {best.bucket_mb:g} MiB, at {level}."


def _line(curve: Curve) -> str:
    if curve.line is None:
        return f"No line: {curve.why_no_line}."
    line = curve.line
    formula = f"Line: {units.ms(line.start_s)} ms + {units.ms(line.alpha_s)} ms per bucket"
    if line.beta_s_per_byte:
        formula += f" + {units.ms(line.beta_s_per_byte * 2**20)} ms per MiB of the last one"
    formula += f", R² {max(line.r2, 0):.2f}."
    if curve.knee is None:
        return f"{formula} No knee: {curve.why_no_knee}."
    return f"{formula} Knee at {units.size(curve.knee.value)}{_ends(curve)}."


def _ends(curve: Curve) -> str:
    """The knee's interval, as far as sizes were measured."""
    assert curve.knee is not None
    knee = curve.knee
    if not (isfinite(knee.low) or isfinite(knee.high)):
        return ""
    smallest, largest = (curve.points[at].bucket_mb * 2**20 for at in (0, -1))
    low = units.size(knee.low) if knee.low >= smallest else f"below {units.size(smallest)}"
    high = units.size(knee.high) if knee.high <= largest else f"beyond {units.size(largest)}"
    return f" [{low}, {high}]"
