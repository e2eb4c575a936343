"""Change points: where in a row of sweeps of the same hardware a cell's step time moved, and by how much.

A sweep is one point: the median over its launches of the mean step. Of all stretches of a series the one is taken whose
ranks differ most from the rest's by Mann and Whitney's statistic. If random orders of the same points rarely have one
as strong, its ends are changes, and each part is looked at again (circular binary segmentation: Olshen et al.,
Biostatistics 5, 2004, on ranks, so that no outlier makes a change by itself). A change must also stand between its two
neighbouring parts alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import ceil, comb
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from analysis.comparison.time_gate import FALSE_ALARMS, per_step_s
from analysis.comparison.verdict import STYLES, NothingToCompare, Row, Verdict, cell_table, telling
from analysis.metrics.scaling import is_ranked
from analysis.statistics.medians import Floats
from analysis.text.units import ms
from results.identity import completed, hardware, identity, settings_of
from results.record import Record

ORDERS = 10_000
"""Random orders that a statistic is compared with, at least."""
CHUNK = 500
"""Random orders that are drawn at a time: for a series that did not move, the first chunk is mostly enough."""
Counts = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class ChangePoint:
    """A series moved here."""

    at: int
    """Position of the first sweep after it."""
    ratio: float
    """Of the step time after it to that before, up to the neighbouring changes."""
    p_value: float


@dataclass(frozen=True)
class Series:
    """One cell on one machine, sweep by sweep."""

    records: list[Record]
    """In the order of time."""
    steps_s: list[float]
    changes: list[ChangePoint]
    verdict: Verdict
    """Of the last change."""


def histories(records: Sequence[Record], margin: float) -> list[Series]:
    """The series of each cell and hardware. Raises NothingToCompare if no cell is in two sweeps."""
    ranked = sorted(filter(is_ranked, records), key=lambda record: str(record.environment.get("time", "")))
    cells: dict[Any, dict[str, Record]] = {}
    for record, named in zip(ranked, completed([settings_of(record) for record in ranked]), strict=True):
        # of the two sides of bench.regress the current code's is read last, and kept
        cells.setdefault((identity(named), hardware(record)), {})[record.rounds_id] = record
    several = [list(of_cell.values()) for of_cell in cells.values() if len(of_cell) > 1]
    if not several:
        raise NothingToCompare("no configuration is in two sweeps of the same hardware")
    return [series(of_cell, margin, FALSE_ALARMS / len(several)) for of_cell in several]


def series(records: list[Record], margin: float, level: float) -> Series:
    steps_s = [median(per_step_s(record, launch) for launch in record.launches) for record in records]
    if len(steps_s) < least_sweeps(level):
        return Series(records, steps_s, [], "too few sweeps")
    changes = change_points(np.asarray(steps_s), level)
    last = changes[-1].ratio if changes else 1.0
    verdict: Verdict = "slower" if last >= 1 + margin else "faster" if last <= 1 / (1 + margin) else "same"
    return Series(records, steps_s, changes, verdict)


def least_sweeps(level: float) -> int:
    """The fewest points that have an order that is rare enough.

    The rarest has one half of n points above the other in one stretch, which can begin at n places; for an odd n the
    upper half has one point more or one less.
    """
    count = 2
    while (1 + count % 2) * count / comb(count, count // 2) > level:
        count += 1
    return count


def change_points(values: Floats, level: float) -> list[ChangePoint]:
    """Change points of ``values``, in order; without a change, one is reported with probability ``level`` at most."""
    cuts = sorted(_cuts(values, 0, level))
    while cuts:
        edges = [0, *cuts, len(values)]
        changes = [
            _change(values[before:at], values[at:after], at)
            for before, at, after in zip(edges, edges[1:], edges[2:], strict=False)
        ]
        weakest = max(changes, key=lambda change: change.p_value)
        if weakest.p_value <= level:
            return changes
        cuts.remove(weakest.at)  # its neighbours do not bear it out
    return []


def _change(before: Floats, after: Floats, at: int) -> ChangePoint:
    """The ratio of one part to the other, and how likely two parts of one kind are to lie as far apart at this cut."""
    from scipy.stats import mannwhitneyu  # half a second, which only a series that moved must wait

    ratio = float(np.median(np.divide.outer(after, before)))
    ranks = _ranks(np.concatenate([before, after]))  # equal values count in their order
    tested = mannwhitneyu(ranks[: len(before)], ranks[len(before) :], method="exact")
    return ChangePoint(at, ratio, float(tested.pvalue))


def _cuts(values: Floats, offset: int, level: float) -> list[int]:
    """The ends of the stretch that stands out most, if it does beyond chance, and of those within the parts."""
    count = len(values)
    if count < least_sweeps(level):
        return []
    statistic, start, end = _strongest(_ranks(values))
    if not _stands_out(statistic, count, level):
        return []
    edges = sorted({0, start, end, count})
    inner = [cut for low, high in pairwise(edges) for cut in _cuts(values[low:high], low, level)]
    return [offset + cut for cut in (*edges[1:-1], *inner)]


def _ranks(values: Floats) -> Counts:
    """From 0 on."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable")


def _strongest(ranks: Counts) -> tuple[float, int, int]:
    """The largest statistic of any stretch against the rest, and where that begins and ends."""
    count = len(ranks)
    sums = _sums(ranks[None])[:, 0]
    starts, ends = np.triu_indices(count + 1, 1)
    lengths = ends - starts
    statistics = np.abs(sums[ends] - sums[starts]) / np.sqrt(np.maximum(lengths * (count - lengths), 1))
    at = int(np.argmax(statistics))
    return float(statistics[at]), int(starts[at]), int(ends[at])


def _stands_out(statistic: float, count: int, level: float) -> bool:
    """Whether at most ``level`` of random orders of so many points, and the one that was seen, have one as large."""
    chunks = ceil(max(ORDERS, 20 / level) / CHUNK)
    as_large, most = 1, level * (1 + chunks * CHUNK)
    for number in range(chunks):
        as_large += int(np.count_nonzero(_by_chance(count, number) >= statistic))
        if as_large > most:
            return False
    return True


@cache
def _by_chance(count: int, number: int) -> Floats:
    """Of each of ``CHUNK`` random orders the largest statistic: the same for all series of so many points."""
    ranks = np.tile(np.arange(count), (CHUNK, 1))
    sums = _sums(np.random.default_rng([count, number]).permuted(ranks, axis=1))
    most = np.zeros(CHUNK)
    for length in range(1, count):
        excess = np.abs(sums[length:] - sums[:-length]).max(axis=0)
        np.maximum(most, excess / np.sqrt(length * (count - length)), out=most)
    return most


def _sums(orders: Counts) -> Counts:
    """Of each order (a row) a column: twice the sum of its first 0, 1, ... ranks' distances from the middle."""
    sums = np.zeros((orders.shape[1] + 1, len(orders)), dtype=np.int32)
    np.cumsum(2 * orders.T - (orders.shape[1] - 1), axis=0, out=sums[1:])
    return sums


def table(series: Sequence[Series]) -> Table:
    """A row per cell: sweeps, the step time now, and each change with the sweep and commit it came with."""
    columns = ("sweeps", "first ms", "last ms", "verdict", "changes")
    rows = []
    for entry in series:
        changes = "\n".join(words(entry, change) for change in entry.changes) or "none"
        times = (ms(entry.steps_s[0]), ms(entry.steps_s[-1]))
        texts = (str(len(entry.steps_s)), *times, entry.verdict, changes)
        rows.append(Row(settings_of(entry.records[-1]), texts, STYLES.get(entry.verdict, "")))
    return cell_table(telling([entry.records[-1] for entry in series]), columns, rows, ("verdict", "changes"))


def words(entry: Series, change: ChangePoint) -> str:
    """Such as ``× 1.08 at 2026-03-04_02-00-00, commit 0123456789ab (p 0.0004)``."""
    record = entry.records[change.at]
    commit = str(record.environment.get("git", {}).get("commit", "unknown"))[:12]
    return f"× {change.ratio:.3f} at {record.sweep_id}, commit {commit} (p {change.p_value:.1g})"


def lacking(entry: Series) -> list[str]:
    """The settings that not all of its records have."""
    counts = Counter(name for record in entry.records for name in settings_of(record))
    return [name for name, count in counts.items() if count < len(entry.records)]


def summary(series: Sequence[Series], margin: float) -> list[str]:
    few = sum(entry.verdict == "too few sweeps" for entry in series)
    level = FALSE_ALARMS / len(series)
    lines = [
        f"{sum(entry.verdict == 'slower' for entry in series)} of {len(series)} slower since their last change, by "
        f"{100 * margin:g} % or more."
    ]
    if names := sorted({name for entry in series for name in lacking(entry)}):
        lines.append(f"warning: not in every record, and taken for unset where missing: {', '.join(names)}")
    if few:
        lines.append(f"warning: {few} with too few sweeps; at least {least_sweeps(level)} can show a change")
    return lines
