"""The error of a projection, by predicting world sizes that were measured.

Fitted on the world sizes up to half the largest, the model predicts the larger ones. Where only one size is at most
half the largest, the largest is predicted from all others. The band of a prediction comes from the fit, and from the
error that the same check has within the fitted sizes; so the check judges the band, too. Beyond the largest measured
size the band widens by the error with each doubling. Where measurements do not tell whether NCCL reduces around a ring
or along a tree, the band has each as far as it is likely.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import exp, log, log2, sqrt
from statistics import NormalDist

import numpy as np

from analysis.projection.curve import ScalingCurve
from analysis.projection.fabric import Fabric
from analysis.projection.fit import DRAWS, Describe, Fitted, fit, undescribed
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
    def variance(self) -> float:
        """Of the logarithm of the step time: what the fit and the measurement leave open."""
        return self.projected.deviation**2 + self.noise**2

    @property
    def is_inside(self) -> bool:
        return self.projected.low_s <= self.measured_s <= self.projected.high_s


def held_out(curves: Sequence[ScalingCurve], timed: Fabric | None = None) -> list[HeldOut]:
    """Predictions of every measured world size above half the largest, or of the largest where only one is smaller.

    Empty where a fit has too few sizes, or lacks the links that the larger sizes use.
    """
    for limit, small in _parts(curves):
        spans_hosts = any(part.spans_hosts for _, part in small)
        places = [
            (place, ranks)
            for place, (whole, _) in enumerate(small)
            for ranks in whole.sizes
            if ranks > limit and (spans_hosts or whole.ranks_per_host is None or ranks <= whole.ranks_per_host)
        ]
        if places:
            break
    else:
        return []
    projector = Projector([part for _, part in small], timed)
    return [
        HeldOut(
            projector.at(place, ranks),
            max(projector.curves[place].sizes),
            small[place][0].step_s(ranks).value,
            small[place][0].relative_error(ranks),
        )
        for place, ranks in places
    ]


def why_unchecked(curves: Sequence[ScalingCurve]) -> str:
    """Why ``held_out`` predicts nothing of these curves, as a clause."""
    if any(_parts(curves)):
        return "no fit on fewer hosts has the links between them"
    return "too few world sizes to predict one from the others"


def _parts(curves: Sequence[ScalingCurve]) -> Iterator[tuple[int, list[tuple[ScalingCurve, ScalingCurve]]]]:
    """Limits of the world size, and the curves that can be fitted up to it, each with that part of it."""
    sizes = sorted({ranks for curve in curves for ranks in curve.sizes})
    for limit in (max(sizes, default=0) // 2, *sizes[-2:-1]):
        both = [(curve, curve.within(limit)) for curve in curves]
        small = [(curve, part) for curve, part in both if len(part.sizes) >= 2 and part.is_known_at(curve.sizes)]
        if small:
            yield limit, small


class Projector:
    """Fits curves that share a fabric, and projects each of them with a band."""

    def __init__(self, curves: Sequence[ScalingCurve], timed: Fabric | None = None) -> None:
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

        The step time is the median of the draws. Its parts are those of the draw that has it.
        """
        seconds = self.drawn_s(place, ranks, describe)
        fitted, draw = self.median_draw(seconds)
        parts = fitted.parts(place, ranks, draw, describe)
        logs, error = np.log(seconds), self.own_deviation(place, ranks)
        low, high = np.exp(np.quantile(logs[:, None] + error * NORMAL, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
        return Projected(self.curves[place].label, ranks, parts, float(low), float(high), float(np.std(logs)))

    def drawn_s(self, place: int, ranks: int, describe: Describe = undescribed) -> Floats:
        """Step times in seconds that measurements leave open: draws of each fit, as many as it is likely."""
        of_fits = [fitted.drawn_s(place, ranks, describe) for fitted in self.fits]
        return np.concatenate([seconds[:count] for seconds, count in zip(of_fits, self._counts, strict=True)])

    def median_draw(self, values: Floats) -> tuple[Fitted, int]:
        """The fit, and the place of the draw in it, that has the median of these values, one per draw."""
        return self._draws[int(np.argsort(values)[len(values) // 2])]

    def own_deviation(self, place: int, ranks: int) -> float:
        """The deviation of log step time among so many ranks that is the model's own."""
        return self.deviation_per_doubling * max(1.0, log2(ranks / max(self.curves[place].sizes)))

    @cached_property
    def _counts(self) -> list[int]:
        """Draws of each fit, in proportion to its likelihood."""
        likelihoods = [exp(self.fits[0].cost - fitted.cost) for fitted in self.fits]
        return [round(DRAWS * one / sum(likelihoods)) for one in likelihoods]

    @cached_property
    def _draws(self) -> list[tuple[Fitted, int]]:
        pairs = zip(self.fits, self._counts, strict=True)
        return [(fitted, draw) for fitted, count in pairs for draw in range(count)]

    @cached_property
    def deviation_per_doubling(self) -> float:
        """Of the logarithm of the step time: the error of the model itself."""
        return model_error(self.checked) if self.checked else UNCHECKED / DEVIATIONS


def model_error(checked: Sequence[HeldOut]) -> float:
    """The deviation per doubling of log step time that the model adds to what a fit leaves open.

    With e an error of the check and v the variance that fit and measurement leave open, it is the τ at which the mean
    of e²/(v + τ²) is 1 (Paule and Mandel 1982). It is 0 where with τ = 0 the mean is below the 90 % quantile of one
    such square: then what is left open explains the errors. Errors of curves that share links go together.
    """
    scales = [max(LEAST_DOUBLINGS, one.doublings) ** 2 for one in checked]
    squares = np.array([log(1 + one.error) ** 2 / scale for one, scale in zip(checked, scales, strict=True)])
    variances = np.array([one.variance / scale for one, scale in zip(checked, scales, strict=True)])
    if np.mean(squares / variances) < DEVIATIONS**2:
        return 0.0
    low, high = 0.0, float(np.max(squares))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(squares / (variances + middle)) > 1 else (low, middle)
    return sqrt(high)


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
