"""Collectives by size: bandwidths as nccl-tests define them, and the line t = α + β·S with where it does not hold.

Size S is that of the whole array, time t the slowest rank's. Algorithm bandwidth is S/t; bus bandwidth is that times a
factor of the kind, so that it can be compared with a link's (nccl-tests, doc/PERFORMANCE.md). Each launch has a line of
its own, of least squares of relative errors through its sizes' medians, and an interval is over launches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.metrics import hosts
from analysis.statistics import medians
from analysis.statistics.medians import Interval
from analysis.table.frame import each_cell, varying
from analysis.table.panels import describe
from analysis.text import units
from analysis.text.spreadsheet import as_data
from results.atomic import replacing
from results.launches import CollectiveTimes
from results.record import NO_ENGINE, Record, world_size

FEWEST_SIZES = 3
"""Two sizes have a line through them whatever they are."""
LEAST_OFF = 0.05
"""A size within so much of the line is on it, however little its iterations spread."""


def bus_factor(kind: str, ranks: int) -> float:
    """Bus bandwidth over algorithm bandwidth (nccl-tests, doc/PERFORMANCE.md), for n ranks.

    all_reduce 2(n-1)/n; reduce_scatter, all_gather and all_to_all (n-1)/n; broadcast 1.
    """
    return {"all_reduce": 2.0, "broadcast": ranks / (ranks - 1)}.get(kind, 1.0) * (ranks - 1) / ranks


@dataclass(frozen=True)
class AlphaBeta:
    """t = alpha_s + S·s_per_byte, of one launch."""

    alpha_s: float
    s_per_byte: float

    def at(self, size_bytes: int) -> float:
        return self.alpha_s + size_bytes * self.s_per_byte


@dataclass(frozen=True)
class SizePoint:
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
    """How much longer than its launch's line it took, as a share: the median over launches; NaN without a line."""
    spread: float
    """Half of what lies between the quartiles of a launch's iterations, as a share of their median, or of the range of
    the launches' residuals, whichever is more."""

    @property
    def is_off(self) -> bool:
        """Whether it is further from the line than it spreads; False without a line."""
        return abs(self.residual) > max(self.spread, LEAST_OFF)


@dataclass(frozen=True)
class Fit:
    """One kind in one cell."""

    kind: str
    ranks: int
    alpha_s: Interval
    """Nothing without a line."""
    bandwidth: Interval
    """1/β in bytes per second: the algorithm bandwidth that large sizes tend to. Nothing without a line."""
    line: AlphaBeta | None
    """Of the medians of α and β over launches; None where there is no fit."""
    why_no_line: str
    points: list[SizePoint]

    @property
    def bus(self) -> float:
        """The bus bandwidth that large sizes tend to, in bytes per second."""
        return self.bandwidth.value * bus_factor(self.kind, self.ranks)

    def where_off(self) -> str:
        """The sizes that are not on the line, such as ``64 KiB (+35 %)``; ``none``, or why there is no line."""
        if self.line is None:
            return f"no fit: {self.why_no_line}"
        off = [
            f"{units.size(point.size_bytes)} ({100 * point.residual:+.0f} %)" for point in self.points if point.is_off
        ]
        return ", ".join(off) or "none"


def is_benchmark(table: pd.DataFrame) -> pd.Series:
    """Whether each row of a table timed collectives rather than training."""
    return table["engine"] == NO_ENGINE


def fits(record: Record) -> list[Fit]:
    """A fit for each kind that the record has times of, in their order."""
    kinds = dict.fromkeys(times.kind for launch in record.launches for times in launch.collective_times)
    return [_fit(record, kind) for kind in kinds]


def fit_line(sizes: Sequence[int], times_s: Sequence[float]) -> AlphaBeta:
    """Least squares of (α + β·S)/t - 1 over two sizes or more: a relative error counts alike at every size."""
    times = np.asarray(times_s, dtype=np.float64)
    terms = np.stack([1 / times, np.asarray(sizes, dtype=np.float64) / times], axis=1)
    scale = np.linalg.norm(terms, axis=0)
    solution, *_ = np.linalg.lstsq(terms / scale, np.ones(len(times)), rcond=None)
    alpha_s, s_per_byte = solution / scale
    return AlphaBeta(float(alpha_s), float(s_per_byte))


def _fit(record: Record, kind: str) -> Fit:
    ranks = world_size(record)
    launches = [_by_size(launch.collective_times, kind) for launch in record.launches]
    lines, why = _lines(launches)
    return Fit(
        kind=kind,
        ranks=ranks,
        alpha_s=medians.median_interval([line.alpha_s for line in lines]),
        bandwidth=medians.median_interval([1 / line.s_per_byte for line in lines]),
        line=AlphaBeta(_median([line.alpha_s for line in lines]), _median([line.s_per_byte for line in lines]))
        if lines
        else None,
        why_no_line=why,
        points=[_point(kind, ranks, size, launches, lines) for size in launches[0]],
    )


def _lines(launches: list[dict[int, list[float]]]) -> tuple[list[AlphaBeta], str]:
    """A line per launch, or none and the reason: too few sizes, or a time that does not grow with the size."""
    fewest = min(len(sizes) for sizes in launches)
    if fewest < FEWEST_SIZES:
        return [], f"{units.counted(fewest, 'size')}, a line needs {FEWEST_SIZES}"
    lines = [fit_line(list(sizes), [_median(times) for times in sizes.values()]) for sizes in launches]
    if min(line.s_per_byte for line in lines) <= 0:
        return [], "time does not grow with size"
    return lines, ""


def _point(
    kind: str, ranks: int, size: int, launches: list[dict[int, list[float]]], lines: list[AlphaBeta]
) -> SizePoint:
    times_s = medians.median_interval([_median(sizes[size]) for sizes in launches])
    pairs = zip(launches, lines, strict=True) if lines else ()
    residuals = [_median(sizes[size]) / line.at(size) - 1 for sizes, line in pairs]
    quartiles = [np.percentile(sizes[size], [25, 75]) / _median(sizes[size]) for sizes in launches]
    within = _median([high - low for low, high in quartiles])
    return SizePoint(
        size_bytes=size,
        time_s=times_s,
        least_s=min(min(sizes[size]) for sizes in launches),
        algorithm_bandwidth=size / times_s.value,
        bus_bandwidth=size / times_s.value * bus_factor(kind, ranks),
        residual=_median(residuals) if residuals else nan,
        spread=max(within, max(residuals) - min(residuals) if residuals else 0.0) / 2,
    )


def _by_size(times: Sequence[CollectiveTimes], kind: str) -> dict[int, list[float]]:
    """The iterations of one launch by size, ascending."""
    return {
        entry.size_bytes: entry.times_s for entry in sorted(times, key=lambda e: e.size_bytes) if entry.kind == kind
    }


def _median(times_s: Sequence[float]) -> float:
    return float(np.median(times_s))


def benchmarks(records: Sequence[Record], table: pd.DataFrame) -> Iterator[tuple[str, Record]]:
    """The records with times of collectives, in the table's order, each with the settings that distinguish it."""
    part = table[is_benchmark(table)]
    names = [name for name in varying(part) if name != "gpus"] if len(part) else []
    for at, row in each_cell(part):
        record = records[at]
        if record.launches:
            name = describe(row, ["gpus", "backend", *(name for name in names if name != "backend")])
            spans = hosts.count(record)
            yield f"{name}, on {spans} hosts" if spans > 1 else name, record


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
    """The metrics that a tracker shows of the cell: α and the bandwidths that large sizes approach, by kind."""
    numbers: dict[str, float] = {}
    for fit in fits(record):
        values = {"alpha_us": fit.alpha_s.value * 1e6, "beta_gb_per_s": fit.bandwidth.value / 1e9}
        values["bus_gb_per_s"] = fit.bus / 1e9
        numbers |= {f"{fit.kind}_{name}": value for name, value in values.items() if fit.line}
    return numbers
