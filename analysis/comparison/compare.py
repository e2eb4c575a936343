"""Two sets of cells against each other: what a step of the second takes over one of the first, and how sure that is.

Cells are paired by all their settings, except the one that differs between the sides; a setting that is new on one
side is taken for unset on the other (``results.identity.completed``). Within a sweep they are compared round by round,
so that what slowed a whole round cancels; cells of two sweeps share no rounds and are resampled apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import stdev
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.comparison.verdict import (
    STYLES,
    VERDICTS,
    Comparison,
    NothingToCompare,
    Pair,
    Row,
    Verdict,
    cell_table,
    judge,
    ratio_texts,
    telling,
)
from analysis.metrics import rounds, time
from analysis.metrics.memory import memory
from analysis.metrics.scaling import is_ranked
from analysis.statistics import medians
from analysis.text.units import counted, is_finite, mib, ms, spoken
from results.differences import differences, surroundings
from results.identity import as_written, completed, identity, settings_of
from results.launches import ENOUGH_LAUNCHES
from results.record import Record
from results.verdicts import UNTRAINED, noted

MARGIN = 0.02
REACH = 1.96 + 1.28
"""Standard errors that the margin must hold for equal cells to be judged the same in four of five comparisons: the
interval's half width (95 %), and how far its middle deviates to either side (80 %)."""
MEDIAN_WASTE = 1.2533
"""Standard error of a median over that of a mean, sqrt(pi/2), for normal samples."""


def pair_sets(first: Sequence[Record], second: Sequence[Record]) -> tuple[list[Pair], list[Record]]:
    """Cells of two sets that have the same settings, and those of either that have no counterpart.

    Raises NothingToCompare if there is no pair, or if a set has a cell twice.
    """
    return _pair(first, second, None, ("the first set", "the second set"))


def pair_values(records: Sequence[Record], setting: str, values: tuple[str, str]) -> tuple[list[Pair], list[Record]]:
    """Cells of one set that differ in ``setting`` alone: the first value against the second.

    Raises NothingToCompare as ``pair_sets``, or if a value does not occur.
    """
    sides = []
    for value in values:
        side = [record for record in records if _has(settings_of(record).get(setting), value)]
        if not side:
            there = sorted({as_written(settings_of(record).get(setting)) for record in records})
            raise NothingToCompare(f"no configuration has {setting}={value}; there are {', '.join(there)}")
        sides.append(side)
    return _pair(sides[0], sides[1], setting, (f"{setting}={values[0]}", f"{setting}={values[1]}"))


def _pair(
    first: Sequence[Record], second: Sequence[Record], setting: str | None, sides: tuple[str, str]
) -> tuple[list[Pair], list[Record]]:
    keys = [
        identity(cell) for cell in completed([_without(settings_of(record), setting) for record in (*first, *second)])
    ]
    ours = _by_key(first, keys[: len(first)], sides[0])
    theirs = _by_key(second, keys[len(first) :], sides[1])
    pairs = [Pair(record, theirs[key]) for key, record in ours.items() if key in theirs]
    if not pairs:
        raise NothingToCompare("no configuration of the one has the same settings as a configuration of the other")
    alone = [record for key, record in ours.items() if key not in theirs]
    return pairs, alone + [record for key, record in theirs.items() if key not in ours]


def _without(named: Mapping[str, Any], setting: str | None) -> dict[str, Any]:
    """The settings less ``setting`` and the options below it."""
    return {name: value for name, value in named.items() if not (setting and f"{name}.".startswith(f"{setting}."))}


def _by_key(records: Sequence[Record], keys: Sequence[Any], where: str) -> dict[Any, Record]:
    records_by_key: dict[Any, Record] = {}
    for key, record in zip(keys, records, strict=True):
        if key in records_by_key:
            raise NothingToCompare(f"{where} has the configuration {record.cell_id} twice; name the sweeps one by one")
        records_by_key[key] = record
    return records_by_key


def _has(value: Any, wanted: str) -> bool:
    try:
        return not isinstance(value, bool) and float(value) == float(wanted)
    except (TypeError, ValueError):
        return as_written(value) == wanted


def compare(pair: Pair, margin: float) -> Comparison:
    """The verdict on one pair; a ratio within 1/(1+margin) to 1+margin counts as the same."""
    peak = _ratio(memory(pair.second).peak_bytes, memory(pair.first).peak_bytes)
    if not is_ranked(pair.first) or not is_ranked(pair.second):
        verdict: Verdict = "broken" if is_ranked(pair.first) else "not compared"
        return Comparison(pair, verdict, medians.NOTHING, None, peak)
    first, second, paired = rounds.samples(pair.first, pair.second, lambda _, launch: time.step_time_s(launch))
    step = rounds.ratio(second, first, paired=paired)
    verdict = judge(step, margin)
    needed = launches_needed(first, second, paired=paired, margin=margin) if verdict == "cannot tell" else None
    return Comparison(pair, verdict, step, needed, peak)


def launches_needed(first: Sequence[float], second: Sequence[float], *, paired: bool, margin: float) -> int | None:
    """Launches a side that would mostly find equal cells the same.

    From the spread s of the logarithms, as if they were normal: a median of n has the standard error 1.2533·s/sqrt(n),
    and the margin must hold 3.24 of them. An estimate from few launches is itself rough.
    """
    if min(len(first), len(second)) < 2:
        return None
    logs = [[math.log(value) for value in side] for side in (first, second)]
    if paired:
        spread = stdev(after - before for before, after in zip(*logs, strict=True))
    else:
        spread = math.hypot(*(stdev(side) for side in logs))
    return max(ENOUGH_LAUNCHES, math.ceil(float(REACH * MEDIAN_WASTE * spread / math.log1p(margin)) ** 2))


def _ratio(top: float | None, bottom: float | None) -> float:
    return top / bottom if top and bottom else math.nan


def environment_differences(pairs: Sequence[Pair]) -> list[str]:
    """Differences between the code and environments of the two sides, such as ``torch: 2.11.0 | 2.15.0``."""
    return _difference_lines(pairs, surroundings)


def _difference_lines(pairs: Sequence[Pair], facts: Callable[[Record], Mapping[str, Any]]) -> list[str]:
    sides = [[facts(pair.first) for pair in pairs], [facts(pair.second) for pair in pairs]]
    return [f"{entry.name}: {entry.then} | {entry.now}" for entry in differences(*sides)]


def show(
    outcomes: Sequence[Comparison],
    alone: Sequence[Record],
    sides: tuple[str, str],
    *,
    setting: str | None,
    margin: float,
    out: Console,
) -> None:
    """Prints the differences of environment, and the settings that one side lacks, then a row a pair and a summary."""
    pairs = [outcome.pair for outcome in outcomes]
    for line in [*environment_differences(pairs), *([] if setting else _difference_lines(pairs, settings_of))]:
        out.print(Text(f"differs: {line}", style="yellow"), soft_wrap=True)
    out.print(table(outcomes, sides, setting))
    for line in summary(outcomes, alone, sides, margin):
        out.print(Text(line), soft_wrap=True)


def table(outcomes: Sequence[Comparison], sides: tuple[str, str], setting: str | None) -> Table:
    names = telling([outcome.pair.first for outcome in outcomes], setting)
    columns = (*(f"{side} ms" for side in sides), "step ×", "interval", "peak MiB", "peak ×", "verdict")
    rows = []
    for outcome in outcomes:
        first, second = outcome.pair.first, outcome.pair.second
        texts = (
            *(ms(_step_s(side)) for side in (first, second)),
            *ratio_texts(outcome.step),
            mib(memory(second).peak_bytes),
            f"{outcome.peak:.3f}" if is_finite(outcome.peak) else "",
            verdict_words(outcome),
        )
        rows.append(Row(settings_of(first), texts, STYLES.get(outcome.verdict, "")))
    return cell_table(names, columns, rows, ("verdict",))


def _step_s(record: Record) -> float:
    return medians.median_interval([time.step_time_s(launch) for launch in record.launches if launch.ranks]).value


def verdict_words(outcome: Comparison) -> str:
    """The verdict, why there is none, and what else a reader must know of either side."""
    first, second = outcome.pair.first, outcome.pair.second
    if outcome.verdict == "broken":
        return f"broken: {_ended(second)}"
    if outcome.verdict == "not compared":
        return f"not compared: {', '.join(dict.fromkeys([_ended(first), _ended(second)]))}"
    sides = {"": (first, second), " (first)": (first,), " (second)": (second,)}
    notes: dict[str, str] = {}
    for where, records in sides.items():
        for name in noted("comparison"):
            if all(name in side.verdicts for side in records):
                notes.setdefault(name, spoken(name) + where)
    return "; ".join([_verdict(outcome), *notes.values()])


def _verdict(outcome: Comparison) -> str:
    if outcome.verdict != "cannot tell":
        return outcome.verdict
    if not is_finite(outcome.step.low):
        return "cannot tell: one launch"
    if outcome.needed is None or outcome.needed <= outcome.step.launches:
        return "cannot tell: about as far apart as the margin"
    return f"cannot tell; about {outcome.needed} launches would"


def _ended(record: Record) -> str:
    """The status of a cell that is not ranked, in words; ``ok`` for one that is."""
    if record.status != "ok" or is_ranked(record):
        return spoken(record.status)
    for verdict, words in UNTRAINED.items():
        if verdict in record.verdicts:
            return words
    return "simulated" if record.resolved.get("simulated") else "no steps timed"


def summary(
    outcomes: Sequence[Comparison], alone: Sequence[Record], sides: tuple[str, str], margin: float
) -> list[str]:
    """The summary of the table, in lines."""
    counts = Counter(outcome.verdict for outcome in outcomes)
    counts_text = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    levels = sorted({outcome.step.level for outcome in outcomes if is_finite(outcome.step.low)})
    level = " to ".join(f"{100 * level:.0f} %" for level in dict.fromkeys((*levels[:1], *levels[-1:]))) or "no level"
    lines = [
        f"{counted(len(outcomes), 'configuration')}, {sides[1]} against {sides[0]}: {counts_text}. "
        f"Same: all of the interval ({level}) within ±{100 * margin:g} %."
    ]
    if alone:
        lines.append(f"without a counterpart: {', '.join(sorted({record.cell_id for record in alone}))}")
    return lines
