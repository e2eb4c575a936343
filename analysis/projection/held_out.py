"""The error of a projection, by predicting world sizes that were measured.

Fitted on the world sizes up to half the largest, the model predicts the larger ones. Where only one size is at most
half the largest, the largest is predicted from all others. The band of a prediction comes from the fit, and from the
error that the same check has within the fitted sizes; so the check judges the band, too. Beyond the largest measured
size the band widens by the error with each doubling. Where measurements do not tell whether NCCL reduces around a ring
or along a tree, the band covers both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import log, log2, sqrt
from statistics import NormalDist

import numpy as np

from analysis.projection.curve import ScalingCurve
from analysis.projection.fabric import Fabric, LinkTime
from analysis.projection.fit import Describe, Fitted, fit, undescribed
from analysis.projection.least_squares import Floats
from analysis.projection.model import Parts

LEVEL = 0.90
DEVIATIONS = 1.645
"""Half the width of a normal distribution's central 90 %, in standard deviations."""
NORMAL = np.array([NormalDist().inv_cdf((at + 0.5) / 40) for at in range(40)])
"""Evenly spaced quantiles of a standard normal distribution."""
LEAST_DOUBLINGS = 0.5
"""An error at a world size that is hardly larger than the fitted ones is not blown up to a doubling."""
UNCHECKED = 0.05
"""The error per doubling that is assumed where too few world sizes were measured to check it."""


@dataclass(frozen=True)
class Projected:
    """One configuration at one world size: step time in seconds, and its 90 % band."""

    label: str
    ranks: int
    parts: Parts
    low_s: float
    high_s: float
    deviation: float = 0.0
    """Of the logarithm of the step time, from the fit alone: what the measured sizes leave open."""

    @property
    def step_s(self) -> float:
        return self.parts.step_s


@dataclass(frozen=True)
class HeldOut:
    """A world size that was predicted without its measurement."""

    projected: Projected
    fitted_to: int
    """The largest world size that the fit saw."""
    measured_s: float
    noise: float
    """The standard error of the logarithm of the measured step time."""

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.projected.step_s / self.measured_s - 1

    @property
    def doublings(self) -> float:
        return log2(self.projected.ranks / self.fitted_to)

    @property
    def excess(self) -> float:
        """The square of the error, less what the fit and the measurement leave open, per doubling."""
        left_open = self.projected.deviation**2 + self.noise**2
        return (log(1 + self.error) ** 2 - left_open) / max(LEAST_DOUBLINGS, self.doublings) ** 2

    @property
    def is_inside(self) -> bool:
        return self.projected.low_s <= self.measured_s <= self.projected.high_s


def held_out(curves: Sequence[ScalingCurve], timed: LinkTime | None = None) -> list[HeldOut]:
    """Predictions of every measured world size above half the largest, or of the largest where only one is smaller.

    Empty where a fit has too few sizes. Raises NotProjected where collectives follow no rule.
    """
    sizes = sorted({ranks for curve in curves for ranks in curve.sizes})
    for limit in (max(sizes, default=0) // 2, *sizes[-2:-1]):
        small = [(curve, curve.within(limit)) for curve in curves if len(curve.within(limit).sizes) >= 2]
        if small:
            break
    else:
        return []
    projector = Projector([part for _, part in small], timed)
    return [
        HeldOut(projector.at(place, ranks), max(part.sizes), whole.step_s(ranks).value, whole.relative_error(ranks))
        for place, (whole, part) in enumerate(small)
        for ranks in whole.sizes
        if ranks > limit
    ]


class Projector:
    """Fits curves that share a fabric, and projects each of them with a band."""

    def __init__(self, curves: Sequence[ScalingCurve], timed: LinkTime | None = None) -> None:
        """``timed`` are links that were timed by themselves."""
        self.curves = list(curves)
        self.fits = fit(self.curves, timed)
        self.checked = held_out(self.curves, timed)

    @property
    def fabric(self) -> Fabric:
        """The network of the most likely fit."""
        return self.fits[0].fabric

    def at(self, place: int, ranks: int, describe: Describe = undescribed) -> Projected:
        """The curve at ``place`` among so many ranks; ``describe`` puts in what a person described of the network.

        The step time is that of the most likely fit; the band covers every likely one.
        """
        ends = [self._with(fitted, place, ranks, describe) for fitted in self.fits]
        return replace(ends[0], low_s=min(one.low_s for one in ends), high_s=max(one.high_s for one in ends))

    def drawn_s(self, place: int, ranks: int, describe: Describe = undescribed) -> Floats:
        """Step times in seconds that measurements leave open, of every likely fit."""
        return np.concatenate([fitted.drawn_s(place, ranks, describe) for fitted in self.fits])

    def _with(self, fitted: Fitted, place: int, ranks: int, describe: Describe) -> Projected:
        curve = self.curves[place]
        parts = fitted.models[place].parts(ranks, fitted.costs(place), describe(fitted.fabric))
        doublings = max(1.0, log2(ranks / max(curve.sizes)))
        error = self.error_per_doubling(curve.label) * doublings / DEVIATIONS
        drawn = np.log(fitted.drawn_s(place, ranks, describe))
        low, high = np.exp(np.quantile(drawn[:, None] + error * NORMAL, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
        ends = min(float(low), parts.step_s), max(float(high), parts.step_s)
        return Projected(curve.label, ranks, parts, *ends, float(np.std(drawn)))

    def error_per_doubling(self, label: str) -> float:
        """The half-width of a 90 % band of log step time, for the error of the model itself.

        It is what errors of the check exceed the fit's own deviations by: of the curve, or of all, whichever is more.
        """
        if not self.checked:
            return UNCHECKED
        excess = {one.projected.label: one.excess for one in self.checked}
        typical = max(0.0, sum(excess.values()) / len(excess))
        return max(sqrt(max(0.0, excess.get(label, 0.0))), DEVIATIONS * sqrt(typical))


def order_kept(checked: Sequence[HeldOut]) -> tuple[int, int]:
    """Pairs of configurations in the predicted order, and all pairs that differ by more than their errors.

    Only pairs at the same world size count.
    """
    kept = total = 0
    for one, other in combinations(checked, 2):
        if one.projected.ranks != other.projected.ranks:
            continue
        difference = log(one.measured_s / other.measured_s)
        if abs(difference) <= abs(one.error) + abs(other.error):
            continue
        total += 1
        kept += (one.projected.step_s > other.projected.step_s) == (difference > 0)
    return kept, total
