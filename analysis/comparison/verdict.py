"""The verdict on a cell and the table of cells, as compare, the time gate, history and noise print them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rich.table import Table

from analysis.statistics.medians import Interval
from analysis.text.labels import label
from analysis.text.units import is_finite
from results.identity import frozen, settings_of
from results.record import Record
from terminal.tables import bare

Verdict = Literal["faster", "slower", "same", "cannot tell", "broken", "not compared", "too few sweeps"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
BAD: tuple[Verdict, ...] = ("slower", "broken")
"""Verdicts at which a script should stop."""
STYLES = {"slower": "red", "broken": "bold red", "faster": "green"}
"""Of a table's rows, by verdict."""


class NothingToCompare(ValueError):
    """No cell of one side has a counterpart on the other; the message names what was looked for."""


@dataclass(frozen=True)
class Pair:
    """One cell on both sides."""

    first: Record
    second: Record


@dataclass(frozen=True)
class Comparison:
    """The comparison of a pair. Ratios are second over first: above 1 is slower, or more."""

    pair: Pair
    verdict: Verdict
    step: Interval
    """Of the step time, second over first; NaN where either side was not timed."""
    needed: int | None
    """Launches a side that would settle it; None where it is settled, or the spread is unavailable."""
    peak: float
    """Of the peak memory; NaN where either side does not know it."""
    detectable: float = math.nan
    """The smallest slowdown, as a share, that so many rounds detect in four of five cases; NaN if unknown."""
    exact: list[str] = field(default_factory=list)
    """What needs no statistics: collectives that differ, in words."""
    more: bool = False
    """Whether the second side needs more memory or sends more, as far as that was judged."""

    @property
    def failed(self) -> bool:
        """Whether a script should stop."""
        return self.more or self.verdict in BAD


def judge(step: Interval, margin: float, *, least: float = 0.0, rounds: int = 2) -> Verdict:
    """``same`` if the whole interval lies within 1/(1+margin) to 1+margin; ``faster`` or ``slower`` if it excludes 1.

    A ratio that differs from 1 by less than ``least`` is neither; fewer launches than ``rounds`` cannot tell.
    """
    if not is_finite(step.low) or step.launches < rounds:
        return "cannot tell"
    if step.low >= 1 / (1 + margin) and step.high <= 1 + margin:
        return "same"
    if step.low > 1 and step.value >= 1 + least:
        return "slower"
    return "faster" if step.high < 1 and step.value <= 1 / (1 + least) else "cannot tell"


def telling(records: Sequence[Record], setting: str | None = None) -> list[str]:
    """The settings that distinguish the cells; engine, stage and world size if there is but one cell."""
    named = [settings_of(record) for record in records]
    names = list(dict.fromkeys(name for cell in named for name in cell if name != setting))
    varying = [name for name in names if len({frozen(cell.get(name)) for cell in named}) > 1]
    plain = [name for name in varying if "." not in name]
    return plain or varying or [name for name in ("engine", "stage", "gpus") if name != setting]


@dataclass(frozen=True)
class Row:
    """A cell of the table: its settings, a text per column, and the style of its verdict."""

    settings: Mapping[str, Any]
    texts: Sequence[str]
    style: str = ""


def cell_table(names: Sequence[str], columns: Sequence[str], rows: Sequence[Row], words: Collection[str] = ()) -> Table:
    """A row per cell: the settings ``names``, then ``columns``. Those in ``words`` hold text, the others numbers."""
    table = bare((*names, *columns), (*names, *words))
    for row in rows:
        table.add_row(*(label(name, row.settings.get(name)) for name in names), *row.texts, style=row.style)
    return table


def ratio_texts(ratio: Interval) -> tuple[str, str]:
    """Its value and its interval; empty where unknown."""
    value = f"{ratio.value:.3f}" if is_finite(ratio.value) else ""
    return value, f"[{ratio.low:.3f}, {ratio.high:.3f}]" if is_finite(ratio.low) else ""
