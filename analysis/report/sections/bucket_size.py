"""Bucket sizes: rows and advice of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import pandas as pd

from analysis.advice.bucket_size import Curve, Point
from analysis.statistics.medians import Interval
from analysis.table.frame import each_cell
from analysis.table.rows import value
from analysis.text import units


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
