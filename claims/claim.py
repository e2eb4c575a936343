"""A claim, and the finding of its experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from claims.suite import Suite

Verdict = Literal["supported", "refuted", "partly", "not testable here"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Finding:
    """The verdict of an experiment on a claim, and its numbers."""

    verdict: Verdict
    because: str
    """One or two sentences with the numbers that decided, for a table."""
    numbers: dict[str, Any] = field(default_factory=dict)
    """Every number that was measured for it, by what it is, with its unit."""


@dataclass(frozen=True)
class Claim:
    """A statement, and the experiment that decides it."""

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


Register = list[Claim]


def claim(
    register: Register, id: str, statement: str, test: str, *, measured: bool = True, timed: bool = False
) -> Callable[[Callable[[Suite], Finding]], Callable[[Suite], Finding]]:
    """Adds the function below it to ``register`` as the experiment of a claim."""

    def add(find: Callable[[Suite], Finding]) -> Callable[[Suite], Finding]:
        register.append(Claim(id, statement, test, find, measured, timed))
        return find

    return add


def decided(holds: bool, because: str, numbers: dict[str, Any]) -> Finding:
    """Supported if it holds, else refuted."""
    return by_parts([holds], because, numbers)


def by_parts(holds: Sequence[bool], because: str, numbers: dict[str, Any]) -> Finding:
    """Supported if the claim holds in all cases, partly if in some, else refuted."""
    verdict: Verdict = "supported" if all(holds) else "partly" if any(holds) else "refuted"
    return Finding(verdict, because, numbers)
