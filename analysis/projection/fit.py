"""Latency, bandwidth and compute time from the measured step times of curves that share a fabric.

The parameters are log α and log 1/β of the fabric, and for each curve the log of a step without communication and of
the factor of its collectives. A maximum a posteriori estimate: residuals are differences of log step time over their
standard error; the factor is near 1 (log deviation 0.2), everything else is free over orders of magnitude. Where
computation hides all communication, α and β stay as uncertain as the prior, and the band of a projection says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, log

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from analysis.projection.curve import Curve
from analysis.projection.fabric import Fabric, Line
from analysis.projection.model import Costs, Model

Floats = NDArray[np.float64]

STARTS = tuple(product((1e-5, 1e-4, 1e-3), (1e-10, 1e-9, 1e-8, 1e-7)))
"""Latency in seconds and seconds per byte, from which the best start is chosen."""
WIDE = 3.0
"""Deviation of the logarithm of what is free."""
FACTOR = 0.2
FIXED = (0.05, 1.0)
"""Fixed share of compute with strong scaling, and the deviation of its logarithm."""
STEP = 1e-4
"""Change of a logarithm for a numeric derivative."""
SHARED = 2
OWN = 3
"""Parameters of the fabric, and of each curve."""


@dataclass(frozen=True)
class Fitted:
    """Estimates for curves that share a fabric, with their covariance."""

    models: list[Model]
    theta: Floats
    covariance: Floats

    @property
    def fabric(self) -> Fabric:
        return _fabric(self.theta)

    def costs(self, at: int) -> Costs:
        """Of the curve with this position."""
        return _costs(self.theta, at, self.models[at])

    def deviation(self, at: int, ranks: int, fabric: Fabric | None = None) -> float:
        """Standard deviation of the logarithm of a projected step time, from the fit alone.

        ``fabric`` is one that a person described, of which nothing is uncertain.
        """
        places = _places(at)
        base = self._log_step_s(self.theta, at, ranks, fabric)
        gradient = []
        for place in places:
            moved = self.theta.copy()
            moved[place] += STEP
            gradient.append((self._log_step_s(moved, at, ranks, fabric) - base) / STEP)
        slopes = np.array(gradient)
        return float(np.sqrt(slopes @ self.covariance[np.ix_(places, places)] @ slopes))

    def _log_step_s(self, theta: Floats, at: int, ranks: int, fabric: Fabric | None) -> float:
        model = self.models[at]
        return log(model.step_s(ranks, _costs(theta, at, model), fabric or _fabric(theta)))


def fit(curves: Sequence[Curve]) -> Fitted:
    """Estimates from all world sizes of these curves. Raises NotProjected where collectives follow no rule."""
    models = [Model(curve) for curve in curves]
    center, spread = _prior(models)
    start = min(
        (_started(center, alpha_s, s_per_byte) for alpha_s, s_per_byte in STARTS), key=lambda t: _cost(t, models)
    )
    solution = least_squares(
        lambda theta: _residuals(theta, models, center, spread),
        start,
        jac=lambda theta: _jacobian(theta, models, center, spread),
        x_scale="jac",
        max_nfev=200,
    )
    jacobian = np.asarray(solution.jac, dtype=np.float64)
    covariance = np.asarray(np.linalg.inv(jacobian.T @ jacobian), dtype=np.float64)
    measured = sum(len(curve.sizes) for curve in curves)
    misfit = float(np.sum(np.square(solution.fun[:measured])) / max(1, measured - len(curves)))
    return Fitted(models, np.asarray(solution.x, dtype=np.float64), covariance * max(1.0, misfit))


def _prior(models: Sequence[Model]) -> tuple[Floats, Floats]:
    center, spread = [log(1e-4), log(1e-9)], [WIDE, WIDE]
    for model in models:
        smallest = model.curve.sizes[0]
        center += [log(model.curve.step_s(smallest).value), 0.0, log(FIXED[0])]
        spread += [WIDE, FACTOR, FIXED[1]]
    return np.array(center), np.array(spread)


def _started(center: Floats, alpha_s: float, s_per_byte: float) -> Floats:
    start = center.copy()
    start[:SHARED] = log(alpha_s), log(s_per_byte)
    return start


def _cost(theta: Floats, models: Sequence[Model]) -> float:
    return float(np.sum(np.square(_misfits(theta, models))))


def _misfits(theta: Floats, models: Sequence[Model]) -> Floats:
    return np.concatenate([_misfits_of(theta, at, model) for at, model in enumerate(models)])


def _misfits_of(theta: Floats, at: int, model: Model) -> Floats:
    curve, costs, fabric = model.curve, _costs(theta, at, model), _fabric(theta)
    return np.array(
        [
            log(model.step_s(ranks, costs, fabric) / curve.step_s(ranks).value) / curve.relative_error(ranks)
            for ranks in curve.sizes
        ]
    )


def _residuals(theta: Floats, models: Sequence[Model], center: Floats, spread: Floats) -> Floats:
    return np.concatenate([_misfits(theta, models), (theta - center) / spread])


def _jacobian(theta: Floats, models: Sequence[Model], center: Floats, spread: Floats) -> Floats:
    """A curve's step times depend on the fabric and on its own parameters only."""
    rows = []
    for at, model in enumerate(models):
        base = _misfits_of(theta, at, model)
        block = np.zeros((len(base), len(theta)))
        for place in _places(at):
            moved = theta.copy()
            moved[place] += STEP
            block[:, place] = (_misfits_of(moved, at, model) - base) / STEP
        rows.append(block)
    return np.concatenate([*rows, np.diag(1 / spread)])


def _places(at: int) -> list[int]:
    first = SHARED + OWN * at
    return [*range(SHARED), *range(first, first + OWN)]


def _fabric(theta: Floats) -> Fabric:
    alpha_s, s_per_byte = (exp(float(value)) for value in theta[:SHARED])
    return Fabric(Line(alpha_s, s_per_byte))


def _costs(theta: Floats, at: int, model: Model) -> Costs:
    step, factor, fixed = (exp(float(value)) for value in theta[_places(at)[SHARED:]])
    return Costs(step, factor, min(0.99, fixed) if model.curve.is_strong else 0.0)
