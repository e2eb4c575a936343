"""How an entry of a record's ``environment``, ``resolved`` or ``conditions`` is declared: meaning, unit, bounds, use.

A ``TypedDict`` lists the entries of a document, each ``Annotated[type, Entry(...)]``. Writing is checked by mypy,
reading by ``results.decode``; reports, MLflow, the reference page and comparisons read the same declarations.
"""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from results.shown import shown

Unit = Literal["", "B", "core", "GPU", "s", "J"]
Role = Literal["", "hardware", "platform", "library", "source", "moment"]
"""What an entry of the environment says:

- ``hardware``: the machine. It names the machine in one line, and is equal within a sweep.
- ``platform``: also equal within a sweep.
- ``library``: what code runs with. A difference is as good as other code.
- ``source``: the code itself, which comparisons take from ``record.source``.
- ``moment``: differs between any two sweeps, so comparisons leave it out.
"""


@dataclass(frozen=True)
class Entry:
    """One entry: what a reader and a comparison must know of it."""

    meaning: str
    unit: Unit = ""
    min: float | None = None
    max: float | None = None
    role: Role = ""
    by_host: bool = False
    """Whether each host of a cluster has its own, in ``environment.hosts``."""
    label: str = ""
    """In the line that describes a machine, such as ``torch {}``; empty: not in it."""

    def misfit(self, value: Any) -> str:
        """What is valid instead of a value of the right type; empty for a valid one."""
        low, high = self.min, self.max
        if isinstance(value, bool) or not isinstance(value, int | float) or (low is None and high is None):
            return ""
        if math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high):
            return ""
        bounds = [f"of at least {low:g}"] if low is not None else []
        return f"{shown(value)}, expected a number {' and '.join([*bounds, *([f'at most {high:g}'] if high else [])])}"


@functools.cache
def types_of(kind: type) -> dict[str, Any]:
    """By name, the declared types of a document's entries, with what annotates them."""
    return typing.get_type_hints(kind, include_extras=True)


@functools.cache
def entries(kind: type) -> Mapping[str, Entry]:
    """By name, in the order of their declaration, the entries of a document."""
    notes = {name: hint.__metadata__ for name, hint in types_of(kind).items()}
    return {name: next(note for note in parts if isinstance(note, Entry)) for name, parts in notes.items()}


def entries_with_role(kind: type, *roles: Role) -> tuple[str, ...]:
    """Names of the entries with one of these roles."""
    return tuple(name for name, entry in entries(kind).items() if entry.role in roles)
