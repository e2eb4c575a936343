"""A claim or a published number, and the finding of its experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from claims.suite import Suite

Verdict = Literal[
    "supported",
    "refuted",
    "partly",
    "reproduced",
    "reproduced in shape",
    "contradicted",
    "not testable here",
]
"""Of a claim: supported, refuted, partly. Of a published number: reproduced, in shape, contradicted."""
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Compared:
    """A published number, and ours."""

    what: str
    published: float
    ours: float
    unit: str = ""
    low: float | None = None
    """Lower end of the interval or band of ours; None where it has none."""
    high: float | None = None

    @property
    def difference(self) -> float:
        """Ours over the published number, less 1."""
        return self.ours / self.published - 1

    @property
    def is_inside(self) -> bool:
        """Whether the published number lies within the band of ours."""
        return self.low is not None and self.high is not None and self.low <= self.published <= self.high


@dataclass(frozen=True)
class PlottedCurve:
    """Points of one line of a plot: published, or ours."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float] = field(default_factory=list)
    """The lower end of a band for each point; empty where there is none."""
    high: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class ComparisonPlot:
    """Published curves and ours over one axis, logarithmic to base 2."""

    x: str
    y: str
    published: list[PlottedCurve]
    ours: list[PlottedCurve]


@dataclass(frozen=True)
class Finding:
    """The verdict of an experiment on a claim, and its numbers."""

    verdict: Verdict
    because: str
    """One or two sentences with the numbers that decided, for a table."""
    numbers: dict[str, Any] = field(default_factory=dict)
    """Every number that was measured for it, by what it is, with its unit."""
    compared: list[Compared] = field(default_factory=list)
    """Of a published number: each value, and ours."""
    plot: ComparisonPlot | None = None


@dataclass(frozen=True)
class Claim:
    """A statement or a published number, and the experiment that decides it."""

    id: str
    statement: str
    """In our words, as its proponents mean it."""
    test: str
    """What is measured, and the threshold at which it is supported or refuted."""
    find: Callable[[Suite], Finding]
    measured: bool
    """False if nothing is measured: the claim is about documents, or needs what no experiment here has."""
    timed: bool
    """Whether it depends on times, and so on an otherwise idle machine."""
    source: str = ""
    """Of a published number: where it was published. Empty for a claim."""


Register = list[Claim]


def claim(
    register: Register,
    id: str,
    statement: str,
    test: str,
    *,
    source: str = "",
    measured: bool = True,
    timed: bool = False,
) -> Callable[[Callable[[Suite], Finding]], Callable[[Suite], Finding]]:
    """Adds the function below it to ``register`` as the experiment of a claim, or with ``source`` of a number."""

    def add(find: Callable[[Suite], Finding]) -> Callable[[Suite], Finding]:
        register.append(Claim(id, statement, test, find, measured, timed, source))
        return find

    return add


def decided(holds: bool, because: str, numbers: dict[str, Any]) -> Finding:
    """Supported if it holds, else refuted."""
    return by_parts([holds], because, numbers)


def by_parts(holds: Sequence[bool], because: str, numbers: dict[str, Any]) -> Finding:
    """Supported if the claim holds in all cases, partly if in some, else refuted."""
    verdict: Verdict = "supported" if all(holds) else "partly" if any(holds) else "refuted"
    return Finding(verdict, because, numbers)


def reproduced(
    compared: Sequence[Compared],
    tolerance: float,
    because: str,
    *,
    in_shape: bool,
    numbers: dict[str, Any] | None = None,
    plot: ComparisonPlot | None = None,
) -> Finding:
    """Reproduced if every number of ours is within ``tolerance`` (relative) of the published one.

    Else reproduced in shape if ``in_shape`` holds, which is what the entry's test names, else contradicted.
    """
    within = all(abs(one.difference) <= tolerance for one in compared)
    verdict: Verdict = "reproduced" if within else "reproduced in shape" if in_shape else "contradicted"
    return Finding(verdict, because, numbers or {}, list(compared), plot)
