"""Change points: where in a row of sweeps of the same hardware a cell's step time moved, and by how much.

A sweep is one point: the median over its launches of the mean step. A series is cut where Mann and Whitney's statistic
of what lies before against what lies after is largest, if random orders of the same points reach that statistic rarely
enough; then either part is looked at again. Ranks alone are used, so no outlier makes a change by itself (after
Pettitt, Applied Statistics 28, 1979; the p-value is a permutation's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, comb
from statistics import median
from typing import Any, Literal

import numpy as np
from rich.table import Table

from analysis.cells import hardware, identity, knobs, label
from analysis.compare import NothingToCompare, telling
from analysis.gate import FALSE_ALARMS, per_step_s
from analysis.scaling import is_ranked
from analysis.stats import Floats
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
    cells: dict[Any, dict[str, Record]] = {}
    for record in sorted(records, key=lambda record: str(record.environment.get("time", ""))):
        if is_ranked(record):  # of two sides of one sweep (bench.regress) the current code's is read last, and kept
            cells.setdefault((identity(knobs(record)), hardware(record)), {})[record.sweep_id] = record
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
    """The fewest points of which some order is rare enough: one in the middle's C(n, n/2), and its mirror image."""
    count = 2
    while 2 / comb(count, count // 2) > level:
        count += 1
    return count


def change_points(values: Floats, level: float) -> list[Change]:
    """Where ``values`` moved, in order; without any change one is found with probability ``level``."""
    edges = [0, *sorted(_cuts(values, 0, level)), len(values)]
    found = []
    for before, at, after in zip(edges, edges[1:], edges[2:], strict=False):
        ratio = float(np.median(np.divide.outer(values[at:after], values[before:at])))
        found.append(Change(at, ratio, _strongest(values[before:after], level)[1]))
    return found


def _cuts(values: Floats, offset: int, level: float) -> list[int]:
    if len(values) < least_sweeps(level):
        return []
    at, p_value = _strongest(values, level)
    if p_value > level:
        return []
    return [*_cuts(values[:at], offset, level), offset + at, *_cuts(values[at:], offset + at, level)]


def _strongest(values: Floats, level: float) -> tuple[int, float]:
    """Where the parts before and after differ most, and how often random orders have parts that differ as much."""
    ranks: Floats = np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64) + 1
    observed = _statistics(ranks[None, :])[0]
    orders = max(ORDERS, ceil(20 / level))
    shuffled: Floats = np.random.default_rng(len(values)).permuted(np.tile(ranks, (orders, 1)), axis=1)
    as_much = int(np.sum(_statistics(shuffled).max(axis=1) >= observed.max() - 1e-9))
    return int(np.argmax(observed)) + 1, (1 + as_much) / (1 + orders)


def _statistics(rows: Floats) -> Floats:
    """Mann and Whitney's statistic at each cut of each row of ranks, over its standard deviation, without sign."""
    count = rows.shape[1]
    before = np.arange(1, count)
    excess = np.cumsum(rows, axis=1)[:, :-1] - before * (count + 1) / 2
    found: Floats = np.abs(excess) / np.sqrt(before * (count - before) * (count + 1) / 12)
    return found


def table(found: Sequence[Series]) -> Table:
    """A row a cell: sweeps, the step time now, and each change with the sweep and commit it came with."""
    names = telling([entry.records[0] for entry in found], None)
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in (*names, "sweeps", "first ms", "last ms", "verdict", "changes"):
        shown.add_column(
            name, justify="right" if name in ("sweeps", "first ms", "last ms") else "left", overflow="fold"
        )
    styles = {"slower": "red", "faster": "green"}
    for entry in found:
        shown.add_row(
            *(label(name, knobs(entry.records[0]).get(name)) for name in names),
            str(len(entry.steps_s)),
            ms(entry.steps_s[0]),
            ms(entry.steps_s[-1]),
            entry.verdict,
            "\n".join(words(entry, change) for change in entry.changes) or "none",
            style=styles.get(entry.verdict, ""),
        )
    return shown


def words(entry: Series, change: Change) -> str:
    """Such as ``× 1.08 at 2026-03-04_02-00-00, commit 0123456789ab (p 0.0004)``."""
    record = entry.records[change.at]
    commit = str(record.environment.get("git", {}).get("commit", "unknown"))[:12]
    return f"× {change.ratio:.3f} at {record.sweep_id}, commit {commit} (p {change.p_value:.1g})"


def summary(found: Sequence[Series], margin: float) -> list[str]:
    few = sum(entry.verdict == "too few sweeps" for entry in found)
    level = FALSE_ALARMS / len(found)
    lines = [
        f"{sum(entry.verdict == 'slower' for entry in found)} of {len(found)} slower since their last change, by "
        f"{100 * margin:g} % or more."
    ]
    if few:
        lines.append(f"warning: {few} with too few sweeps; at least {least_sweeps(level)} can show a change")
    return lines
