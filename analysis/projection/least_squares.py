"""Least squares from many starts, or of many problems that differ in their data, all at once (Levenberg-Marquardt)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONVERGED = 1e-3
"""A gain of the cost, half a sum of squares of deviations, below which a minimum is reached."""
LONGEST = 2.0
"""Change of a parameter in one iteration, at most: parameters are logarithms."""
DAMPING = (1e-3, 1e-9, 1e4)
"""At first, least, and where a row without a gain is given up."""


class Residuals(Protocol):
    """Residuals and their derivatives for several sets of parameters, one per row."""

    def residuals(self, theta: Floats) -> Floats:
        """Rows by residuals."""

    def jacobian(self, theta: Floats) -> Floats:
        """Rows by residuals by parameters."""


def minimized(problem: Residuals, starts: Floats, moved: Floats | float, iterations: int) -> tuple[Floats, Floats]:
    """The parameters of a minimum for each row of ``starts``, and half the sum of squares there.

    A row that has not converged after so many iterations stays where it is.

    ``moved`` is subtracted from the residuals, for each row: data and priors that differ by so many deviations.
    """
    theta, moved = starts.copy(), np.broadcast_to(moved, (len(starts), 1) if np.ndim(moved) == 0 else np.shape(moved))
    residuals = problem.residuals(theta) - moved
    costs = _half_squares(residuals)
    damping = np.full(len(theta), DAMPING[0])
    rows = np.arange(len(theta))
    for _ in range(iterations):
        steps = _steps(problem.jacobian(theta[rows]), residuals[rows], damping[rows])
        tried = problem.residuals(theta[rows] + steps) - moved[rows]
        tried_costs = _half_squares(tried)
        gains = costs[rows] - tried_costs
        better = gains > 0
        improved = rows[better]
        theta[improved] += steps[better]
        residuals[improved], costs[improved] = tried[better], tried_costs[better]
        damping[rows] = np.maximum(DAMPING[1], damping[rows] * np.where(better, 1 / 5, 5))
        converged = better & (gains < CONVERGED)
        rows = rows[~converged & (damping[rows] < DAMPING[2])]
        if not len(rows):
            break
    return theta, costs


def _half_squares(residuals: Floats) -> Floats:
    return np.asarray(0.5 * np.sum(np.square(residuals), axis=1), dtype=np.float64)


def _steps(jacobian: Floats, residuals: Floats, damping: Floats) -> Floats:
    """The damped Gauss-Newton step of each row."""
    normal = np.matmul(np.swapaxes(jacobian, 1, 2), jacobian)
    slopes = np.einsum("krp,kr->kp", jacobian, residuals)
    diagonal = np.einsum("kpp->kp", normal)
    normal = normal + damping[:, None, None] * diagonal[:, :, None] * np.eye(normal.shape[1])
    steps = -np.linalg.solve(normal, slopes[:, :, None])[:, :, 0]
    return np.clip(steps, -LONGEST, LONGEST)
