"""Whether the steps of a launch are alike: Pettitt's test for a change, whatever their distribution.

Under the null hypothesis the order of a launch's n step times carries nothing. Let r_i be their ranks and
U_t = 2·(r_1 + ... + r_t) - t·(n+1), which compares the first t with the rest as Mann and Whitney do. With
K = max |U_t|, P(K >= k) is at most about 2·exp(-6k²/(n³+n²)) (Pettitt, Applied Statistics 28, 1979), whatever the
distribution of a step: a single slow step, or a heavy tail, does not raise it. A drift is found as a change too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Shift:
    """The step of a launch from which steps differ most from those before."""

    step: int
    """The first step after it."""
    ratio: float
    """Median step after it over the median before it."""
    p: float
    """Probability of such a difference, or a greater one, between steps that are alike; at most about."""


def change(step_times_s: Sequence[float]) -> Shift:
    """The likeliest change within at least two steps."""
    count = len(step_times_s)
    total, largest, at = 0.0, -1.0, 1
    for index, rank in enumerate(ranks(step_times_s)[:-1]):
        total += 2 * rank - (count + 1)
        if abs(total) > largest:
            largest, at = abs(total), index + 1
    before_s, after_s = median(step_times_s[:at]), median(step_times_s[at:])
    ratio = after_s / before_s if before_s else math.inf
    return Shift(at, ratio, min(1.0, 2 * math.exp(-6 * largest**2 / (count**3 + count**2))))


def ranks(values: Sequence[float]) -> list[float]:
    """The place of each value among all, from 1; equal ones share the mean of their places."""
    order = sorted(range(len(values)), key=values.__getitem__)
    places = [0.0] * len(values)
    first = 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for at in order[first : last + 1]:
            places[at] = (first + last) / 2 + 1
        first = last + 1
    return places
