"""When a published curve is reproduced in shape: a rule that a flat, a straight or a reordered curve does not pass.

Each curve is compared from a starting point that published and ours have in common, such as the largest world size
that was fitted. With changes as logarithms of ratios to the starting point, all of these must hold:

1. Each published change of more than 1 % has our change's sign, and ours is between half and twice as large. Where the
   published value changes by less, ours changes by less than 2 %.
2. Each of our values is within 15 % of the published one.
3. Where the largest published change from a point to the next is at least 1.5 times as large as any other, so is ours,
   between the same points: a knee is at its place.
4. Of two curves whose last changes differ by more than 1 %, the one that changes more is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import log

FACTOR = 2.0
SMALL = 0.01
STILL = 0.02
WITHIN = 0.15
KNEE = 1.5


@dataclass(frozen=True)
class Curve:
    """Published values and ours at the same points; the first of both is the starting point."""

    name: str
    published: Sequence[float]
    ours: Sequence[float]


def differences(curves: Sequence[Curve]) -> list[str]:
    """What of the rule does not hold, in words; empty if the curves have the published shape."""
    lines = [line for curve in curves for line in [*_of_changes(curve), *_of_values(curve), *_of_knee(curve)]]
    return lines + reordered(curves)


def reordered(curves: Sequence[Curve]) -> list[str]:
    """What of the fourth part of the rule does not hold, in words."""
    return [line for one, other in combinations(curves, 2) for line in _of_order(one, other)]


def _changes(values: Sequence[float]) -> list[float]:
    return [log(value / values[0]) for value in values[1:]]


def _of_changes(curve: Curve) -> list[str]:
    lines = []
    for theirs, ours in zip(_changes(curve.published), _changes(curve.ours), strict=True):
        still = abs(theirs) <= SMALL
        if not (abs(ours) <= STILL if still else 1 / FACTOR <= ours / theirs <= FACTOR):
            lines.append(f"{curve.name} changes by {100 * ours:+.1f} instead of {100 * theirs:+.1f} %")
    return lines


def _of_values(curve: Curve) -> list[str]:
    pairs = zip(curve.published[1:], curve.ours[1:], strict=True)
    return [f"{curve.name} is {100 * (ours / theirs - 1):+.0f} % off" for theirs, ours in pairs if _far(ours, theirs)]


def _far(ours: float, theirs: float) -> bool:
    return abs(ours / theirs - 1) > WITHIN


def _of_knee(curve: Curve) -> list[str]:
    theirs, ours = (_knee(values) for values in (curve.published, curve.ours))
    return [] if theirs is None or theirs == ours else [f"{curve.name} has no knee where the published curve has one"]


def _knee(values: Sequence[float]) -> int | None:
    """The place of the largest change from a point to the next, if it stands out."""
    steps = [abs(log(after / before)) for before, after in pairwise(values)]
    if len(steps) < 2:
        return None
    largest = max(range(len(steps)), key=lambda at: steps[at])
    others = max(step for at, step in enumerate(steps) if at != largest)
    return largest if steps[largest] >= KNEE * others else None


def _of_order(one: Curve, other: Curve) -> list[str]:
    theirs = _changes(one.published)[-1] - _changes(other.published)[-1]
    ours = _changes(one.ours)[-1] - _changes(other.ours)[-1]
    if abs(theirs) <= SMALL or theirs * ours > 0:
        return []
    return [f"{one.name} and {other.name} change in the other order"]
