"""Latency, bandwidth and compute time from the measured step times of curves that share a fabric.

The parameters are log α and log 1/β of the fabric, and for each curve the log of a step without communication and of
the factor of its collectives. A maximum a posteriori estimate: residuals are differences of log step time over their
standard error; the factor is near 1 (log deviation 0.2), everything else is free over orders of magnitude. Links
that were timed by themselves (``workload=collectives``) are known within a log deviation of 0.3. Where
computation hides all communication, α and β stay as uncertain as the prior, and the band of a projection says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from math import exp, log

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from analysis.projection.curve import ScalingCurve
from analysis.projection.fabric import Fabric, LinkTime
from analysis.projection.model import Costs, StepModel

Floats = NDArray[np.float64]

STARTS = tuple(product((1e-5, 1e-4, 1e-3), (1e-10, 1e-9, 1e-8, 1e-7)))
"""Latency in seconds and seconds per byte, from which the best start is chosen."""
WIDE = 3.0
"""Deviation of the logarithm of what is free."""
FACTOR = 0.2
TIMED = 0.3
"""Deviation of the logarithm of latency and bandwidth that were timed by themselves: a step's collectives differ."""
FIXED = (0.05, 1.0)
"""Fixed share of compute with strong scaling, and the deviation of its logarithm."""
LIKELY = 2.0
"""A fit whose cost is higher by this much is 7 times less likely than the best, exp(2), and left out."""
STEP = 1e-4
"""Change of a logarithm for a numeric derivative."""
SHARED = 2
OWN = 3
"""Parameters of the fabric, and of each curve."""


@dataclass(frozen=True)
class Fitted:
    """Estimates for curves that share a fabric, with their covariance."""

    models: list[StepModel]
    theta: Floats
    covariance: Floats
    cost: float
    """Half the sum of squared residuals."""
    trees: bool = True
    """Whether NCCL's all-reduce may be a tree."""

    @property
    def fabric(self) -> Fabric:
        return _fabric(self.theta, self.trees)

    def costs(self, at: int) -> Costs:
        """Of the curve with this position."""
        return _costs(self.theta, at, self.models[at])

    def deviation(self, at: int, ranks: int, fabric: Fabric | None = None) -> float:
        """Standard deviation of the logarithm of a projected step time, from the fit alone.

        ``fabric`` is one that a person described; nothing of it is uncertain.
        """
        places = _places(at)
        slopes = _slopes(lambda theta: self._log_step_s(theta, at, ranks, fabric), self.theta, places)
        return float(np.sqrt(slopes @ self.covariance[np.ix_(places, places)] @ slopes))

    def _log_step_s(self, theta: Floats, at: int, ranks: int, fabric: Fabric | None) -> float:
        model = self.models[at]
        return log(model.step_s(ranks, _costs(theta, at, model), fabric or _fabric(theta, self.trees)))


def fit(curves: Sequence[ScalingCurve], timed: LinkTime | None = None) -> list[Fitted]:
    """Estimates from all world sizes of these curves, the most likely first; ``timed`` are links timed by themselves.

    There are two where NCCL reduces over all ranks, since it chooses between a ring and a tree; one that is much less
    likely than the other is left out. Raises NotProjected where collectives follow no rule.
    """
    fits = [_fit(curves, timed, trees=False)]
    if any(curve.backend == "nccl" and curve.stage <= 1 for curve in curves):
        fits.append(_fit(curves, timed, trees=True))
    best = min(fits, key=lambda fitted: fitted.cost)
    return sorted((one for one in fits if one.cost - best.cost < LIKELY), key=lambda fitted: fitted.cost)


def _fit(curves: Sequence[ScalingCurve], timed: LinkTime | None, *, trees: bool) -> Fitted:
    problem = Problem([StepModel(curve) for curve in curves], trees, timed)
    solution = least_squares(problem.residuals, problem.start(), jac=problem.jacobian, x_scale="jac", max_nfev=200)
    jacobian = np.asarray(solution.jac, dtype=np.float64)
    covariance = np.asarray(np.linalg.inv(jacobian.T @ jacobian), dtype=np.float64)
    measured = sum(len(curve.sizes) for curve in curves)
    misfit = float(np.sum(np.square(solution.fun[:measured])) / max(1, measured - len(curves)))
    theta = np.asarray(solution.x, dtype=np.float64)
    return Fitted(problem.models, theta, covariance * max(1.0, misfit), float(solution.cost), trees)


@dataclass(frozen=True)
class Problem:
    """The residuals of the fit: misfits to measured step times, and distances from the prior."""

    models: list[StepModel]
    trees: bool
    timed: LinkTime | None = None
    """Links that were timed by themselves."""

    @cached_property
    def prior(self) -> tuple[Floats, Floats]:
        """Center and deviation of each parameter."""
        center, spread = [log(1e-4), log(1e-9)], [WIDE, WIDE]
        if self.timed:
            center, spread = [log(self.timed.alpha_s), log(self.timed.s_per_byte)], [TIMED, TIMED]
        for model in self.models:
            smallest = model.curve.sizes[0]
            center += [log(model.curve.step_s(smallest).value), 0.0, log(FIXED[0])]
            spread += [WIDE, FACTOR, FIXED[1]]
        return np.array(center), np.array(spread)

    def start(self) -> Floats:
        """The best of ``STARTS``."""
        starts = [self.prior[0]]
        for alpha_s, s_per_byte in STARTS:
            start = self.prior[0].copy()
            start[:SHARED] = log(alpha_s), log(s_per_byte)
            starts.append(start)
        return min(starts, key=lambda theta: float(np.sum(np.square(self.residuals(theta)))))

    def residuals(self, theta: Floats) -> Floats:
        """Misfits over their standard errors, then distances from the prior over its deviations."""
        misfits = [self._misfits(theta, at) for at in range(len(self.models))]
        return np.concatenate([*misfits, (theta - self.prior[0]) / self.prior[1]])

    def jacobian(self, theta: Floats) -> Floats:
        """A curve's step times depend on the fabric and on its own parameters only."""
        rows = []
        for at in range(len(self.models)):
            places = _places(at)
            block = np.zeros((len(self.models[at].curve.sizes), len(theta)))
            block[:, places] = _slopes(partial(self._misfits, at=at), theta, places).T
            rows.append(block)
        return np.concatenate([*rows, np.diag(1 / self.prior[1])])

    def _misfits(self, theta: Floats, at: int) -> Floats:
        model = self.models[at]
        curve, costs, fabric = model.curve, _costs(theta, at, model), _fabric(theta, self.trees)
        logs = [log(model.step_s(ranks, costs, fabric) / curve.step_s(ranks).value) for ranks in curve.sizes]
        errors = [curve.relative_error(ranks) for ranks in curve.sizes]
        return np.asarray(np.divide(logs, errors), dtype=np.float64)


def _slopes(function: Callable[[Floats], Floats | float], theta: Floats, places: Sequence[int]) -> Floats:
    """Numeric derivatives of ``function`` by the parameters at ``places``, one row each."""
    base = function(theta)
    slopes = []
    for place in places:
        moved = theta.copy()
        moved[place] += STEP
        slopes.append((function(moved) - base) / STEP)
    return np.array(slopes)


def _places(at: int) -> list[int]:
    first = SHARED + OWN * at
    return [*range(SHARED), *range(first, first + OWN)]


def _fabric(theta: Floats, trees: bool) -> Fabric:
    alpha_s, s_per_byte = (exp(float(value)) for value in theta[:SHARED])
    return Fabric(LinkTime(alpha_s, s_per_byte), trees=trees)


def _costs(theta: Floats, at: int, model: StepModel) -> Costs:
    step, factor, fixed = (exp(float(value)) for value in theta[_places(at)[SHARED:]])
    return Costs(step, factor, min(0.99, fixed) if model.curve.is_strong else 0.0)
