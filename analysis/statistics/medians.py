"""Medians over launches and their bootstrap intervals, with the level that so few launches can reach.

The launch is the independent sample, never the step. The percentile bootstrap of a median cannot do
what it promises on a handful of launches: no interval over n samples covers the median more often than
the whole range from the smallest to the largest does, which is 1 - 2·(1/2)^n (the true median is outside
only when all n fall on one side of it): 0 % for one launch, 50, 75, 87.5 and 93.75 % for 2 to 5. Each
interval therefore carries the level it attains, and is cut no tighter than that level allows: from the
tails of the bootstrap goes at most the share that leaves the order statistics which cover the median
at that level (the sign test's; Conover, Practical Nonparametric Statistics, 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb, nan

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NOMINAL = 0.95

RESAMPLES = 4000


@dataclass(frozen=True)
class Interval:
    """A value, its interval, and the share of such intervals that would hold the truth."""

    value: float
    low: float
    high: float
    """NaN, as ``low``, where one launch leaves no interval."""
    level: float
    launches: int

    def level_text(self) -> str:
        """Such as ``75 % (3 launches)``."""
        if self.launches < 2:
            return "no interval (1 launch)" if self.launches else "not measured"
        return f"{100 * self.level:.0f} % ({self.launches} launches)"


NOTHING = Interval(nan, nan, nan, 0.0, 0)


def attainable(launches: int, nominal: float = NOMINAL) -> float:
    """The level that an interval of a median over ``launches`` samples reaches: min(nominal, 1 - 2·(1/2)^n)."""
    return max(0.0, min(nominal, 1 - 2 * 0.5**launches))


def median_interval(samples: Sequence[float], *, nominal: float = NOMINAL, seed: int = 0) -> Interval:
    """Median and bootstrap interval of one number per launch, in its unit. Deterministic for a seed."""
    values = np.asarray(samples, dtype=np.float64)
    if values.size == 0:
        return NOTHING
    return _interval(float(np.median(values)), _medians(values, seed), values.size, nominal)


def ratio_interval(
    top: Sequence[float], bottom: Sequence[float], *, paired: bool = True, nominal: float = NOMINAL, seed: int = 0
) -> Interval:
    """Median of ``top`` over median of ``bottom``, with the interval of that ratio.

    Paired, entry i of both is the same round, and rounds are resampled jointly, so that what moves both
    in a round cancels; unpaired, each side is resampled alone. The level quoted is the median's.
    """
    above, below = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    if above.size == 0 or below.size == 0:
        return NOTHING
    if paired and above.size != below.size:
        raise ValueError(f"paired samples differ in number: {above.size} and {below.size}")
    ratios = _medians(above, seed) / _medians(below, seed if paired else seed + 1)
    value = float(np.median(above) / np.median(below))
    return _interval(value, ratios, min(above.size, below.size), nominal)


def _interval(value: float, resampled: Floats, launches: int, nominal: float) -> Interval:
    if launches < 2:
        return Interval(value, nan, nan, 0.0, launches)
    cut = int(tail(launches, nominal) * (RESAMPLES - 1))
    ends = np.partition(resampled, (cut, RESAMPLES - 1 - cut))
    return Interval(value, float(ends[cut]), float(ends[-1 - cut]), attainable(launches, nominal), launches)


@lru_cache
def tail(launches: int, nominal: float = NOMINAL) -> float:
    """Share of resamples to cut from each end so that a median's interval still covers at the attainable level.

    Let l be the largest rank for which [X_l, X_(n+1-l)] covers the median at ``nominal`` (l = 1 where none
    does). A resample's median falls at or below X_l with probability P(Binomial(n, l/n) > n/2); half of
    that, for the simulation's noise, is the most that is cut.
    """
    rank, outside = 1, 2 * 0.5**launches
    while rank < launches // 2:
        outside += 2 * comb(launches, rank) * 0.5**launches
        if 1 - outside < nominal:
            break
        rank += 1
    share = rank / launches
    most = launches // 2 + 1
    below = sum(comb(launches, k) * share**k * (1 - share) ** (launches - k) for k in range(most, launches + 1))
    return min((1 - nominal) / 2, below / 2)


def _medians(values: Floats, seed: int) -> Floats:
    """The median of each resample of ``values``."""
    order = np.argsort(values)
    lower, upper = _middles(tuple(order.tolist()), seed)
    ordered = values[order]
    return ordered[lower] if values.size % 2 else (ordered[lower] + ordered[upper]) / 2


@lru_cache(maxsize=512)
def _middles(order: tuple[int, ...], seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The places in ascending order of each resample's two middle values; shared by all cells of that ``order``."""
    launches = len(order)
    drawn = np.random.default_rng([seed, launches]).integers(0, launches, (RESAMPLES, launches))
    places = np.sort(np.argsort(order)[drawn], axis=1)
    return places[:, (launches - 1) // 2].copy(), places[:, launches // 2].copy()
