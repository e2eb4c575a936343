"""Collectives by size: bandwidths as nccl-tests define them, and the line t = α + β·S with where it does not hold.

Size S is that of the whole array, time t the slowest rank's. Algorithm bandwidth is S/t; bus bandwidth is that times a
factor of the kind, so that it can be held against a link's (nccl-tests, doc/PERFORMANCE.md). Each launch has a line of
its own, of least squares of relative errors through its sizes' medians, and an interval is over launches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.statistics import medians
from analysis.statistics.medians import Interval
from analysis.table.frame import each_cell, varying
from analysis.table.panels import describe
from analysis.text import units
from analysis.text.spreadsheet import as_data
from results.atomic import replacing
from results.launches import CollectiveTimes
from results.record import NO_ENGINE, Record, world_size

LEAST_OFF = 0.05
"""A size within so much of the line is on it, however little its iterations spread."""


def bus_factor(kind: str, ranks: int) -> float:
    """Bus bandwidth over algorithm bandwidth (nccl-tests, doc/PERFORMANCE.md), for n ranks.

    all_reduce 2(n-1)/n; reduce_scatter, all_gather and all_to_all (n-1)/n; broadcast 1.
    """
    return {"all_reduce": 2.0, "broadcast": ranks / (ranks - 1)}.get(kind, 1.0) * (ranks - 1) / ranks


@dataclass(frozen=True)
class Line:
    """t = alpha_s + S·s_per_byte, of one launch."""

    alpha_s: float
    s_per_byte: float

    def at(self, size_bytes: int) -> float:
        return self.alpha_s + size_bytes * self.s_per_byte


@dataclass(frozen=True)
class Point:
    """One kind at one size, over all launches."""

    size_bytes: int
    time_s: Interval
    """A launch's is the median of its iterations."""
    least_s: float
    """The shortest iteration of all."""
    algorithm_bandwidth: float
    """Bytes per second, at the median."""
    bus_bandwidth: float
    residual: float
    """How much longer than its launch's line it took, as a share: the median over launches."""
    spread: float
    """Half of what lies between the quartiles of a launch's iterations, as a share of their median, or of the range of
    the launches' residuals, whichever is more."""

    @property
    def is_off(self) -> bool:
        """Whether it is further from the line than it spreads."""
        return abs(self.residual) > max(self.spread, LEAST_OFF)


@dataclass(frozen=True)
class Fit:
    """One kind in one cell."""

    kind: str
    ranks: int
    alpha_s: Interval
    bandwidth: Interval
    """1/β in bytes per second: the algorithm bandwidth that large sizes tend to. Nothing where β is not positive."""
    line: Line
    """Of the medians of α and β over launches, for drawing."""
    points: list[Point]

    @property
    def bus(self) -> float:
        """The bus bandwidth that large sizes tend to, in bytes per second."""
        return self.bandwidth.value * bus_factor(self.kind, self.ranks)

    def where_off(self) -> str:
        """The sizes that are not on the line, such as ``64 KiB (+35 %)``; ``none``."""
        off = [
            f"{units.size(point.size_bytes)} ({100 * point.residual:+.0f} %)" for point in self.points if point.is_off
        ]
        return ", ".join(off) or "none"


def is_benchmark(table: pd.DataFrame) -> pd.Series:
    """Which rows of a frame are cells that timed collectives rather than trained."""
    return table["engine"] == NO_ENGINE


def fits(record: Record) -> list[Fit]:
    """A fit for each kind that the record has times of, in their order."""
    kinds = dict.fromkeys(times.kind for launch in record.launches for times in launch.collective_times)
    return [_fit(record, kind) for kind in kinds]


def fit_line(sizes: Sequence[int], times_s: Sequence[float]) -> Line:
    """Least squares of (α + β·S)/t - 1: a relative error counts alike at every size. One size has no slope."""
    if len(set(sizes)) < 2:
        return Line(float(np.mean(times_s)), 0.0)
    times = np.asarray(times_s, dtype=np.float64)
    terms = np.stack([1 / times, np.asarray(sizes, dtype=np.float64) / times], axis=1)
    scale = np.linalg.norm(terms, axis=0)
    solution, *_ = np.linalg.lstsq(terms / scale, np.ones(len(times)), rcond=None)
    alpha_s, s_per_byte = solution / scale
    return Line(float(alpha_s), float(s_per_byte))


def _fit(record: Record, kind: str) -> Fit:
    ranks = world_size(record)
    launches = [_by_size(launch.collective_times, kind) for launch in record.launches]
    lines = [fit_line(list(sizes), [_median(times) for times in sizes.values()]) for sizes in launches]
    slopes = [line.s_per_byte for line in lines]
    grows = min(slopes) > 0
    return Fit(
        kind=kind,
        ranks=ranks,
        alpha_s=medians.median_interval([line.alpha_s for line in lines]),
        bandwidth=medians.median_interval([1 / slope for slope in slopes]) if grows else medians.NOTHING,
        line=Line(float(np.median([line.alpha_s for line in lines])), float(np.median(slopes))),
        points=[_point(kind, ranks, size, launches, lines) for size in launches[0]],
    )


def _point(kind: str, ranks: int, size: int, launches: list[dict[int, list[float]]], lines: list[Line]) -> Point:
    times_s = medians.median_interval([_median(sizes[size]) for sizes in launches])
    residuals = [_median(sizes[size]) / line.at(size) - 1 for sizes, line in zip(launches, lines, strict=True)]
    quartiles = [np.percentile(sizes[size], [25, 75]) / _median(sizes[size]) for sizes in launches]
    within = float(np.median([high - low for low, high in quartiles]))
    return Point(
        size_bytes=size,
        time_s=times_s,
        least_s=min(min(sizes[size]) for sizes in launches),
        algorithm_bandwidth=size / times_s.value,
        bus_bandwidth=size / times_s.value * bus_factor(kind, ranks),
        residual=float(np.median(residuals)),
        spread=max(within, max(residuals) - min(residuals)) / 2,
    )


def _by_size(times: Sequence[CollectiveTimes], kind: str) -> dict[int, list[float]]:
    """The iterations of one launch by size, ascending."""
    return {
        entry.size_bytes: entry.times_s for entry in sorted(times, key=lambda e: e.size_bytes) if entry.kind == kind
    }


def _median(times_s: Sequence[float]) -> float:
    return float(np.median(times_s))


@dataclass(frozen=True)
class Row:
    """One fit in words."""

    cell: str
    kind: str
    alpha: str
    alpha_interval: str
    bandwidth: str
    bandwidth_interval: str
    bus: str
    off: str


HEADINGS = ["cell", "collective", "α (µs)", "1/β (GB/s)", "bus (GB/s)", "off the line"]


def benchmarks(records: Sequence[Record], table: pd.DataFrame) -> Iterator[tuple[str, Record]]:
    """The records with times of collectives, in the table's order, each with what tells it from the others."""
    part = table[is_benchmark(table)]
    names = [name for name in varying(part) if name != "gpus"] if len(part) else []
    for at, row in each_cell(part):
        record = records[at]
        if record.launches:
            yield describe(row, ["gpus", "backend", *(name for name in names if name != "backend")]), record


def fit_rows(records: Sequence[Record], table: pd.DataFrame) -> list[Row]:
    """A row for each kind of each cell that timed collectives."""
    return [
        Row(
            cell=name,
            kind=fit.kind.replace("_", "-"),
            alpha=units.number(fit.alpha_s.value * 1e6),
            alpha_interval=_span(fit.alpha_s, 1e6),
            bandwidth=units.number(fit.bandwidth.value / 1e9),
            bandwidth_interval=_span(fit.bandwidth, 1e-9),
            bus=units.number(fit.bus / 1e9),
            off=fit.where_off(),
        )
        for name, record in benchmarks(records, table)
        for fit in fits(record)
    ]


def _span(interval: Interval, factor: float) -> str:
    if not units.known(interval.low):
        return ""
    return f"{units.number(interval.low * factor)} to {units.number(interval.high * factor)}"


def write_csv(records: Sequence[Record], table: pd.DataFrame, path: Path) -> bool:
    """Writes a row for each kind and size of each cell, bare SI units; False, and no file, where there is none."""
    rows = [
        {
            "cell_id": record.cell_id,
            "sweep_id": record.sweep_id,
            "gpus": fit.ranks,
            "kind": fit.kind,
            "size_bytes": point.size_bytes,
            "time_s": point.time_s.value,
            "time_s_low": point.time_s.low,
            "time_s_high": point.time_s.high,
            "least_s": point.least_s,
            "algorithm_bytes_per_s": point.algorithm_bandwidth,
            "bus_bytes_per_s": point.bus_bandwidth,
            "residual": point.residual,
            "spread": point.spread,
            "is_off": point.is_off,
            "launches": point.time_s.launches,
            "interval_level": point.time_s.level or nan,
        }
        for _, record in benchmarks(records, table)
        for fit in fits(record)
        for point in fit.points
    ]
    if rows:
        with replacing(path) as partial:
            as_data(pd.DataFrame(rows)).to_csv(partial, index=False, lineterminator="\n")
    return bool(rows)


def metrics(record: Record) -> dict[str, float]:
    """Numbers by which a tracker knows the cell: α and the bandwidths that large sizes tend to, by kind."""
    found = {}
    for fit in fits(record):
        found[f"{fit.kind}_alpha_us"] = fit.alpha_s.value * 1e6
        found[f"{fit.kind}_beta_gb_per_s"] = fit.bandwidth.value / 1e9
        found[f"{fit.kind}_bus_gb_per_s"] = fit.bus / 1e9
    return found
