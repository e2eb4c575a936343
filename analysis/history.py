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
from itertools import pairwise
from math import ceil, comb
from statistics import median
from typing import Any, Literal

import numpy as np
from rich.table import Table

from analysis.cells import completed, hardware, identity, knobs, label
from analysis.compare import STYLES, NothingToCompare, telling
from analysis.scaling import is_ranked
from analysis.stats import Floats
from analysis.tables import bare
from analysis.time_gate import FALSE_ALARMS, per_step_s
from analysis.units import ms
from bench.record import Record

ORDERS = 10_000
"""Random orders that a statistic is held against, at least."""
Verdict = Literal["slower", "faster", "same", "too few sweeps"]


@dataclass(frozen=True)
class Change:
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
    changes: list[Change]
    verdict: Verdict
    """Of the last change."""


def histories(records: Sequence[Record], margin: float) -> list[Series]:
    """The series of each cell and hardware. Raises NothingToCompare if no cell is in two sweeps."""
    ranked = sorted(filter(is_ranked, records), key=lambda record: str(record.environment.get("time", "")))
    cells: dict[Any, dict[str, Record]] = {}
    for record, named in zip(ranked, completed([knobs(record) for record in ranked]), strict=True):
        # of the two sides of bench.regress the current code's is read last, and kept
        cells.setdefault((identity(named), hardware(record)), {})[record.rounds_id] = record
    several = [list(of_cell.values()) for of_cell in cells.values() if len(of_cell) > 1]
    if not several:
        raise NothingToCompare("no cell is in two sweeps of the same hardware")
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
    """The fewest points of which some order is rare enough.

    The rarest has one half of n points above the other in one stretch, which can begin at n places; for an odd n the
    upper half has one point more or one less.
    """
    count = 2
    while (1 + count % 2) * count / comb(count, count // 2) > level:
        count += 1
    return count


def change_points(values: Floats, level: float) -> list[Change]:
    """Where ``values`` moved, in order; where nothing moved, one is found with probability ``level`` at most."""
    cuts = sorted(_cuts(values, 0, level))
    while cuts:
        edges = [0, *cuts, len(values)]
        found = [
            _change(values[before:at], values[at:after], at, level)
            for before, at, after in zip(edges, edges[1:], edges[2:], strict=False)
        ]
        weakest = max(found, key=lambda change: change.p_value)
        if weakest.p_value <= level:
            return found
        cuts.remove(weakest.at)  # its neighbours do not bear it out
    return []


def _change(before: Floats, after: Floats, at: int, level: float) -> Change:
    """The ratio of one part to the other, and how often random orders lie as far apart at this very cut."""
    ratio = float(np.median(np.divide.outer(after, before)))
    rows = _orders(np.concatenate([before, after]), level)
    excess = np.abs(rows[:, : len(before)].sum(axis=1) - len(before) * (rows.shape[1] + 1) / 2)
    return Change(at, ratio, float(np.mean(excess >= excess[0] - 1e-9)))


def _cuts(values: Floats, offset: int, level: float) -> list[int]:
    """The ends of the stretch that stands out most, if it does beyond chance, and of those within the parts."""
    count = len(values)
    if count < least_sweeps(level):
        return []
    rows = _orders(values, level)
    strongest, (start, end) = _stretches(rows)
    if np.mean(strongest >= strongest[0] - 1e-9) > level:
        return []
    edges = sorted({0, start, end, count})
    inner = [cut for low, high in pairwise(edges) for cut in _cuts(values[low:high], low, level)]
    return [offset + cut for cut in (*edges[1:-1], *inner)]


def _orders(values: Floats, level: float) -> Floats:
    """The ranks of ``values``, as they are in the first row and in a random order in each other."""
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64) + 1
    rows: Floats = np.tile(ranks, (max(ORDERS, ceil(20 / level)), 1))
    rows[1:] = np.random.default_rng(len(values)).permuted(rows[1:], axis=1)
    return rows


def _stretches(rows: Floats) -> tuple[Floats, tuple[int, int]]:
    """Of each row the largest statistic of any stretch against the rest, and the first row's stretch."""
    count = rows.shape[1]
    sums = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows, axis=1)], axis=1)
    most, where = np.zeros(len(rows)), (0, count)
    for start in range(count):
        lengths = np.arange(1, count - start + (start > 0))
        if not len(lengths):
            continue
        excess = sums[:, start + 1 : start + 1 + len(lengths)] - sums[:, [start]] - lengths * (count + 1) / 2
        found = np.abs(excess) / np.sqrt(lengths * (count - lengths) * (count + 1) / 12)
        if found[0].max() > most[0]:
            where = (start, start + 1 + int(np.argmax(found[0])))
        most = np.maximum(most, found.max(axis=1))
    return most, where


def table(found: Sequence[Series]) -> Table:
    """A row a cell: sweeps, the step time now, and each change with the sweep and commit it came with."""
    names = telling([entry.records[-1] for entry in found], None)
    columns = (*names, "sweeps", "first ms", "last ms", "verdict", "changes")
    shown = bare(columns, (*names, "verdict", "changes"))
    for entry in found:
        shown.add_row(
            *(label(name, knobs(entry.records[-1]).get(name)) for name in names),
            str(len(entry.steps_s)),
            ms(entry.steps_s[0]),
            ms(entry.steps_s[-1]),
            entry.verdict,
            "\n".join(words(entry, change) for change in entry.changes) or "none",
            style=STYLES.get(entry.verdict, ""),
        )
    return shown


def words(entry: Series, change: Change) -> str:
    """Such as ``× 1.08 at 2026-03-04_02-00-00, commit 0123456789ab (p 0.0004)``."""
    record = entry.records[change.at]
    commit = str(record.environment.get("git", {}).get("commit", "unknown"))[:12]
    return f"× {change.ratio:.3f} at {record.sweep_id}, commit {commit} (p {change.p_value:.1g})"


def lacking(entry: Series) -> list[str]:
    """The knobs that not all of its records have."""
    counts = Counter(name for record in entry.records for name in knobs(record))
    return [name for name, count in counts.items() if count < len(entry.records)]


def summary(found: Sequence[Series], margin: float) -> list[str]:
    few = sum(entry.verdict == "too few sweeps" for entry in found)
    level = FALSE_ALARMS / len(found)
    lines = [
        f"{sum(entry.verdict == 'slower' for entry in found)} of {len(found)} slower since their last change, by "
        f"{100 * margin:g} % or more."
    ]
    if names := sorted({name for entry in found for name in lacking(entry)}):
        lines.append(f"warning: not in every record, and taken for unset where missing: {', '.join(names)}")
    if few:
        lines.append(f"warning: {few} with too few sweeps; at least {least_sweeps(level)} can show a change")
    return lines
