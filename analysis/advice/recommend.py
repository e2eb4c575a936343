"""Recommendations: the fastest settings within a user's limits, with all that are tied with the fastest.

Settings are compared by throughput over all ranks, round by round within a sweep. A setting is *tied* unless the whole
interval of the fastest's throughput over its own lies above 1. Of tied settings the one that needs least memory
stands first: it costs nothing that was measured. What disturbed a cell is reported with its numbers.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.advice.pareto import front
from analysis.advice.ranking import is_tied, rank
from analysis.metrics.interference import load_text
from analysis.statistics.medians import Interval
from analysis.table.frame import varying
from analysis.table.panels import describe, panels
from analysis.table.provenance import commands
from analysis.text.units import counted, is_finite, number, percent, size, spoken
from results.identity import REQUEST_SUFFIX, as_written, frozen, is_task, settings_of
from results.record import Record
from results.verdicts import UNRANKED, noted

ALWAYS_NAMED = ("engine", "workload", "stage", "gpus")


@dataclass(frozen=True)
class AdviceLimits:
    """Limits of a recommendation. None: no limit."""

    memory_bytes: float | None = None
    """Of the peak of the rank that needs most."""
    efficiency: float | None = None
    """The least scaling efficiency."""
    gpus: int | None = None
    """The most ranks."""

    def broken_by(self, row: pd.Series, smallest: int) -> str | None:
        """Why a cell is not admissible; None if it is. ``smallest`` is the smallest world that was run."""
        if row["status"] != "ok":
            return spoken(row["status"])
        for verdict in UNRANKED:
            if verdict in row["verdicts"].split(";"):
                return spoken(verdict)
        if not is_finite(row["throughput_per_s"]):
            return "no steps timed"
        if self.gpus is not None and row["gpus"] > self.gpus:
            return f"more than {self.gpus} ranks"
        if self.memory_bytes is not None and not row["peak_bytes"] <= self.memory_bytes:
            return f"peak {size(row['peak_bytes'])}" if is_finite(row["peak_bytes"]) else "peak not measured"
        if self.efficiency is not None:
            if not is_finite(row["scaling_efficiency"]) or smallest < row["gpus"] == row["scaling_baseline_gpus"]:
                return "no efficiency: no smaller world of it was timed"
            if row["scaling_efficiency"] < self.efficiency:
                return f"efficiency {percent(row['scaling_efficiency'])}"
        return None


@dataclass(frozen=True)
class Choice:
    """One admissible setting."""

    name: str
    """The settings that distinguish it, in words."""
    row: pd.Series
    behind: Interval
    """The fastest's throughput over its own."""
    overrides: str
    """The settings that distinguish it, as they are given on the command line."""
    record: Record

    @property
    def command(self) -> str:
        """The command that runs it again, with every setting."""
        return commands([self.record])[0]

    @property
    def tied(self) -> bool:
        """Whether it is not measurably slower than the fastest."""
        return is_tied(self.behind)


@dataclass(frozen=True)
class Advice:
    """The advice for one task: cells that do the same work."""

    task: str
    tied: list[Choice]
    """Tied with the fastest, lowest peak memory first; empty if nothing is admissible."""
    front: list[Choice]
    """The Pareto-optimal ones of all admissible settings, fastest first."""
    rejected: list[tuple[str, str]]
    """Settings that break a limit, and how."""
    level: str = ""
    """Of the intervals by which others were compared with the fastest, the lowest; empty where there was none."""
    undecided: int = 0
    """Settings that one launch leaves without an interval."""
    load: str = ""
    """The background load of the fastest, where it was heavy: then nothing is recommended."""


def advise(records: Sequence[Record], table: pd.DataFrame, limits: AdviceLimits) -> list[Advice]:
    """One Advice for each task in ``table``, the frame of ``records``."""
    names = varying(table)
    settings = [name for name in names if not is_task(name)]
    return [
        _advise(records, panel.table, panel.title, settings or ["stage", "gpus"], limits)
        for panel in panels(table, [name for name in names if is_task(name)])
    ]


def _advise(
    records: Sequence[Record], table: pd.DataFrame, task: str, settings: list[str], limits: AdviceLimits
) -> Advice:
    smallest = int(table["gpus"].min())
    broken = {index: limits.broken_by(row, smallest) for index, row in table.iterrows()}
    rejected = [(describe(row, settings), why) for index, row in table.iterrows() if (why := broken[index])]
    fit = table[[broken[index] is None for index in table.index]]
    if fit.empty:
        return Advice(task, [], [], rejected)
    fit = fit.sort_values("throughput_per_s", ascending=False)
    ranked = [records[int(str(index))] for index in fit.index]
    ranking = rank(ranked, fit["throughput_per_s"].tolist())
    choices = [
        Choice(describe(row, settings), row, behind, overrides(record, settings), record)
        for (_, row), behind, record in zip(fit.iterrows(), ranking.behind, ranked, strict=True)
    ]
    tied = sorted((choice for choice in choices if choice.tied), key=lambda choice: _peak(choice.row))
    level, undecided = ranking.level_text(), len(ranking.undecided)
    return Advice(task, tied, pareto(choices), rejected, level, undecided, load_text(ranked[ranking.fastest]))


def pareto(choices: Sequence[Choice]) -> list[Choice]:
    """The choices, fastest first, each with less peak memory than all that are faster."""
    places = front([choice.row["throughput_per_s"] for choice in choices], [_peak(choice.row) for choice in choices])
    return [choices[at] for at in places]


def _peak(row: pd.Series) -> float:
    """Infinite where it was not measured, or not all of it."""
    has_peak = is_finite(row["peak_bytes"]) and "state_on_servers" not in row["verdicts"].split(";")
    return float(row["peak_bytes"]) if has_peak else math.inf


def overrides(record: Record, settings: Sequence[str]) -> str:
    """The arguments of the command line that ask for the setting."""
    named = settings_of(record)
    names = dict.fromkeys((*ALWAYS_NAMED, *(name.removesuffix(REQUEST_SUFFIX) for name in settings)))
    return shlex.join(
        f"{name}={as_written(named[name])}"
        for name in names
        if name in named and (name in ALWAYS_NAMED or frozen(named[name]) != "null")
    )


def lines(advice: Advice) -> list[str]:
    """The advice in words, a line each."""
    text_lines = [advice.task] if advice.task else []
    if not advice.tied:
        return [*text_lines, "No setting keeps the limits:", *(f"  {name}: {why}" for name, why in advice.rejected)]
    first = advice.tied[0]
    if advice.load:
        fastest = advice.front[0]
        text_lines.append(f"No recommendation: {fastest.name} was fastest under heavy background load ({advice.load}).")
        text_lines += [f"  {_figures(fastest)}", "  Run again on an idle machine."]
    else:
        text_lines += [f"Use  {first.overrides}", f"  {_figures(first)}", f"  {_reason(advice)}", f"  {first.command}"]
    if len(advice.tied) > 1 and not advice.load:
        text_lines.append("Tied with the fastest (paired ratio over rounds includes 1):")
        text_lines += [f"  {choice.overrides}\n    {_figures(choice)}; {_behind(choice)}" for choice in advice.tied[1:]]
    slower = [choice for choice in advice.front if not choice.tied]
    if slower:
        text_lines.append("Slower, for less memory:")
        text_lines += [f"  {choice.overrides}\n    {_figures(choice)}; {_behind(choice)}" for choice in slower]
    if advice.rejected:
        text_lines.append("Left out:")
        text_lines += [f"  {name}: {why}" for name, why in advice.rejected]
    return text_lines


def _figures(choice: Choice) -> str:
    row = choice.row
    parts = [f"{number(row['throughput_per_s'])} {row['unit']}s/s"]
    if is_finite(row["peak_bytes"]):
        parts.append(f"peak {size(row['peak_bytes'])} per rank")
    if row["gpus"] != row["scaling_baseline_gpus"] and is_finite(row["scaling_efficiency"]):
        baseline = counted(int(row["scaling_baseline_gpus"]), "rank")
        parts.append(f"efficiency {percent(row['scaling_efficiency'])} relative to {baseline}")
    if "oversubscribed" in row["verdicts"].split(";"):
        parts.append("oversubscribed: says nothing about scaling")
    if warned := [spoken(verdict) for verdict in row["verdicts"].split(";") if verdict in noted("advice")]:
        parts.append(f"but: {', '.join(warned)}")
    return ", ".join(parts)


def _reason(advice: Advice) -> str:
    first, fastest = advice.tied[0], advice.front[0]
    if len(advice.tied) == 1 and not advice.level:
        return f"It is the fastest{'; one launch is too few to assess ties' if advice.undecided else ''}."
    single = f" Without one, of a single launch: {counted(advice.undecided, 'setting')}." if advice.undecided else ""
    level = f"Intervals: {advice.level}.{single}"
    if len(advice.tied) == 1:
        return f"It is the fastest, and nothing is tied with it. {level}"
    if not is_finite(first.row["peak_bytes"]):
        return f"It is the fastest; memory was not measured. {level}"
    if first.row.name == fastest.row.name:
        return f"It is the fastest, and has the lowest peak memory of those tied with it. {level}"
    return f"It needs the least memory of those tied with the fastest ({fastest.name}). {level}"


def _behind(choice: Choice) -> str:
    behind = choice.behind
    if not is_finite(behind.low):
        return f"the fastest has {behind.value:.3f} times its throughput (one launch)"
    if behind.value == behind.low == behind.high == 1:
        return "the fastest"
    return f"the fastest has {behind.value:.3f} times its throughput [{behind.low:.3f}, {behind.high:.3f}]"
