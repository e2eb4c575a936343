"""Step time by bucket size: the curve, a line through it, its knee, and the sizes that are tied with the best.

A step with n buckets, the last of them x bytes, takes T = T0 + α·n + β·x. Each bucket costs α that nothing hides (its
start, its bookkeeping); the last one is full only when backward ends, so its transfer, β seconds a byte, overlaps with
nothing. Without overlap all gradients are exposed whatever the bucket, which T0 holds: T = T0 + α·n. Of S bytes cut
into buckets of b, the last one filled to r, n = S/b and x = r·b. T is least at b = sqrt(α·S/(r·β)): the knee.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, isfinite, nan, sqrt
from statistics import median

import numpy as np
import pandas as pd

from analysis.metrics import time
from analysis.metrics.rounds import ratio, samples
from analysis.metrics.scaling import is_ranked
from analysis.statistics import medians
from analysis.statistics.medians import Floats, Interval
from analysis.table.frame import each_cell, varying
from analysis.table.panels import describe
from analysis.theory import native_engine
from results.identity import frozen
from results.launches import Launch, shared_rounds
from results.model import element_count
from results.record import Record

FEWEST = 3
"""Bucket sizes that make a curve."""
LEAST_R2 = 0.8
"""Below it the line explains too little of what the sizes differ by to speak of a knee."""
REFITS = 400


@dataclass(frozen=True)
class Point:
    """One bucket size."""

    index: int
    """The cell's, in the table."""
    bucket_mb: float
    """As configured, in MiB."""
    buckets: int
    """Of a step, as the engine made them, or else as the parameters fit."""
    last_bytes: int
    """Of the bucket that is full last."""
    step: Interval
    behind: Interval
    """Its step time over the best size's, paired by rounds."""

    @property
    def tied(self) -> bool:
        """Whether it is not measurably slower than the best; with one launch there is no interval: only the best is."""
        return self.behind.value == 1 or self.behind.low <= 1


@dataclass(frozen=True)
class Line:
    """T = T0 + α·n + β·x."""

    start_s: float
    alpha_s: float
    beta_s_per_byte: float
    """0 without overlap, where T0 includes it."""
    r2: float
    """Share of the squared relative differences between sizes that the line explains."""

    def at(self, buckets: float, last_bytes: float) -> float:
        return self.start_s + self.alpha_s * buckets + self.beta_s_per_byte * last_bytes


@dataclass(frozen=True)
class Curve:
    """Cells that differ in bucket size alone."""

    title: str
    points: list[Point]
    """Smallest bucket first."""
    line: Line | None
    why_no_line: str
    knee: Interval | None
    """In bytes; 0 and infinity are ends that lie below and above any size."""
    why_no_knee: str

    @property
    def best(self) -> Point:
        return min(self.points, key=lambda point: point.step.value)


def curves(records: Sequence[Record], table: pd.DataFrame) -> list[Curve]:
    """One for each setting that was timed with three bucket sizes or more, in the table's order."""
    names = [name for name in varying(table) if name != "bucket_mb"]
    setting_curves = []
    rows = dict(each_cell(table))
    for group in _alike(records, table):
        by_size = [group[bucket_mb] for bucket_mb in sorted(group)]
        title = describe(rows[by_size[0]], names) if names else ""
        setting_curves.append(_curve(title, by_size, [records[index] for index in by_size]))
    return setting_curves


def _alike(records: Sequence[Record], table: pd.DataFrame) -> list[dict[float, int]]:
    """The cells of one sweep that differ in bucket size alone, by that size, where there are enough of them."""
    groups: dict[tuple[str, ...], dict[float, int]] = {}
    names = [name for name in varying(table) if name != "bucket_mb"]
    for at, row in each_cell(table):
        bucket = row["bucket_mb"]
        if isinstance(bucket, int | float) and bucket > 0 and is_ranked(records[at]) and row["gpus"] > 1:
            key = (records[at].sweep_id, *(frozen(row[name]) for name in names))
            groups.setdefault(key, {})[float(bucket)] = at
    return [group for group in groups.values() if len(group) >= FEWEST]


def _curve(title: str, indices: list[int], cells: list[Record]) -> Curve:
    sizes = gradient_bytes(cells[0])
    steps = [medians.median_interval([time.step_time_s(launch) for launch in cell.launches]) for cell in cells]
    best = cells[min(range(len(cells)), key=lambda at: steps[at].value)]
    points = []
    for index, cell, step in zip(indices, cells, steps, strict=True):
        bucket_mb = float(cell.config["bucket_mb"])
        fitted = packed(sizes, bucket_mb * 2**20)
        buckets = _described(cell, "buckets", len(fitted))
        last_bytes = _described(cell, "last_bucket_bytes", fitted[-1])
        above, below, paired = samples(cell, best, _step_s)
        points.append(Point(index, bucket_mb, buckets, last_bytes, step, ratio(above, below, paired=paired)))
    overlap_setting = cells[0].config.get("overlap")
    overlaps = cells[0].resolved.get("engine", {}).get("overlap", overlap_setting) is not False
    why = _too_few(points, overlaps=overlaps)
    line = None if why else fit([point.step.value for point in points], points, overlaps=overlaps)
    knee, why_no_knee = _knee(line, points, cells, sum(sizes)) if line else (None, why)
    return Curve(title, points, line, why, knee, why_no_knee)


def _described(cell: Record, name: str, otherwise: int) -> int:
    """``name`` in the engine's description of its buckets; ``otherwise`` if it is missing."""
    value = cell.resolved.get("engine", {}).get(name)
    return value if isinstance(value, int) and value > 0 else otherwise


def _step_s(record: Record, launch: Launch) -> float:
    return time.step_time_s(launch)


def gradient_bytes(record: Record) -> list[int]:
    """Of each trained parameter, the last first, which is the order in which backward has them ready."""
    bits = re.search(r"\d+", str(record.resolved.get("engine", {}).get("reduce_dtype", "float32")))
    width = int(bits.group()) // 8 if bits else 4
    parameters = record.model.parameters if record.model else []
    return [width * element_count(entry.shape) for entry in reversed(parameters) if entry.requires_grad]


def packed(sizes: Sequence[int], cap_bytes: float) -> list[int]:
    """Bytes of the buckets that parameters of ``sizes`` fill in turn; one larger than the cap has its own."""
    return [sum(cut) for cut in native_engine.packed(sizes, cap_bytes, align=1)] or [0]


def _too_few(points: Sequence[Point], *, overlaps: bool) -> str:
    """Why no line can be tested on these points; empty if one can."""
    cut = len({(point.buckets, point.last_bytes) for point in points})
    numbers = 3 if overlaps else 2
    if cut > numbers:
        return ""
    return (
        f"these {len(points)} sizes cut the gradients in {cut} different ways; a line of {numbers} numbers needs "
        f"{numbers + 1} to be tested"
    )


def fit(times_s: Sequence[float], points: Sequence[Point], *, overlaps: bool) -> Line:
    """The line of least squared relative errors whose numbers are not negative."""
    times = np.asarray(times_s)
    columns = [np.ones(len(points)), np.array([float(point.buckets) for point in points])]
    if overlaps:
        columns.append(np.array([float(point.last_bytes) for point in points]))
    relative = np.stack(columns, axis=1) / times[:, None]
    coefficients = non_negative(relative)
    constant = (1 / times).sum() / (1 / times**2).sum()
    spread = float(((constant / times - 1) ** 2).sum())
    left = float(((relative @ coefficients - 1) ** 2).sum())
    start, alpha, beta = [*map(float, coefficients), 0.0][:3]
    return Line(start, alpha, beta, 1 - left / spread if spread > 1e-18 else nan)


def non_negative(columns: Floats) -> Floats:
    """Coefficients, none below zero, that bring the sum of ``columns`` closest to ones.

    The best on a set of columns that are used is a plain least-squares solution, so the best of those that have no
    negative number is it; with three columns there are seven sets to try.
    """
    scale = np.abs(columns).max(axis=0)
    best, least = np.zeros(columns.shape[1]), inf
    for count in range(1, columns.shape[1] + 1):
        for used in map(list, combinations(range(columns.shape[1]), count)):
            coefficients = np.linalg.lstsq(columns[:, used] / scale[used], np.ones(len(columns)), rcond=None)[0]
            left = float(((columns[:, used] / scale[used] @ coefficients - 1) ** 2).sum())
            if (coefficients >= 0).all() and left < least:
                least, best = left, np.zeros(columns.shape[1])
                best[used] = coefficients / scale[used]
    return best


def _knee(line: Line, points: list[Point], cells: list[Record], total: int) -> tuple[Interval | None, str]:
    """The minimum of the line, or why there is none."""
    if not line.r2 >= LEAST_R2:
        return None, f"the line explains {100 * max(line.r2, 0):.0f} % of what sizes differ by, too little to speak of"
    full = fullness(points, total)
    at = knee_bytes(line, total, full)
    smallest, largest = points[0].bucket_mb * 2**20, min(points[-1].bucket_mb * 2**20, total)
    if not isfinite(at):
        return None, "no part of a step grows with the bucket: larger ones are never slower"
    if at == 0:
        return None, "no part of a step grows with the number of buckets: smaller ones are never slower"
    if not smallest <= at <= largest:
        side = "below the smallest" if at < smallest else "beyond the largest"
        return None, f"the line is least {side} size that was measured or makes a difference"
    spread = _spread(at, points, cells, total, full)
    if spread.low < smallest and spread.high > largest:
        return None, "these launches place it nowhere within the sizes that were measured"
    return spread, ""


def fullness(points: Sequence[Point], total: int) -> float:
    """The typical size of the last bucket, as a share of a bucket."""
    return median(point.last_bytes / min(point.bucket_mb * 2**20, total) for point in points)


def knee_bytes(line: Line, total: int, full: float) -> float:
    """sqrt(α·S/(r·β)); infinity where nothing grows with the bucket, 0 where nothing grows with their number."""
    if line.beta_s_per_byte == 0:
        return inf if line.alpha_s else nan
    return sqrt(line.alpha_s * total / (full * line.beta_s_per_byte))


def _spread(at: float, points: list[Point], cells: list[Record], total: int, full: float) -> Interval:
    """The knee with the interval of fits to resampled rounds, all sizes of a round kept or dropped together."""
    rounds = shared_rounds(*(cell.launches for cell in cells))
    if len(rounds) < 2:
        return Interval(at, nan, nan, 0.0, len(rounds))
    by_round = np.array([list(map(time.step_time_s, launches)) for launches in rounds]).T
    knees = []
    for draw in np.random.default_rng([0, len(rounds)]).integers(0, len(rounds), (REFITS, len(rounds))):
        knees.append(knee_bytes(fit(list(np.median(by_round[:, draw], axis=1)), points, overlaps=True), total, full))
    ordered = np.sort([knee for knee in knees if knee == knee])
    cut = int(medians.tail(len(rounds)) * (len(ordered) - 1))
    return Interval(at, float(ordered[cut]), float(ordered[-1 - cut]), medians.attainable(len(rounds)), len(rounds))
