"""Time to the target loss."""

from __future__ import annotations

from analysis.advice.time_to_target import Race
from analysis.metrics.measured import Measured
from analysis.report.model.content import Content
from analysis.report.model.section import Section, Value, numbers
from analysis.statistics.medians import Interval
from analysis.table.panels import describe
from analysis.text import units
from analysis.text.prose import tied
from results.target import WINDOW


def section(content: Content) -> Section:
    """A row for each configuration, the first at its target on top; the answer has who that is, in words."""
    firsts = {race.cells[0].index for race in content.races}
    behind = {
        cell.index: Value("first") if cell.index in firsts else _value(ratio)
        for race in content.races
        for cell, ratio in zip(race.cells, race.ranking.behind, strict=True)
    }
    return Section(
        "Time to the target loss",
        "target",
        tables=content.cell_table(
            [cell for race in content.races for cell in race.cells],
            lambda cell: [*row(cell), behind[cell.index]],
            numbers("reached", "steps to it", "time (s)", "times the first"),
        ),
        notes=[
            f"Reached: launches whose mean loss over {WINDOW} steps and all ranks was at most the target. Each launch "
            "has a seed of its own. Steps include warm-up steps, which count as the launch's median step in time. A "
            "launch that did not reach the target counts as later than all that did. Times the first: median over "
            f"rounds. {content.intervals}"
        ],
    )


def sentences(content: Content) -> list[str]:
    """The answer for each workload and target."""
    return [sentence(content, race) for race in content.races]


def sentence(content: Content, race: Race) -> str:
    """Who is first and who is tied with it, or that nobody reached the target."""
    loss = units.number(race.loss)
    if not race.is_won:
        limit = max(int(cell.record.config["steps"]) for cell in race.cells)
        return f"No configuration reached a loss of {loss} in more than half of its launches of {limit} steps."
    first, others = race.cells[0], [name(content, cell) for cell in race.tied]
    assert first.target
    ends = units.interval(first.target.seconds.low, first.target.seconds.high)
    level = f" ({units.percent(first.target.seconds.level)} CI {ends})" if ends else ""
    words = (
        f"{name(content, first)} reaches a loss of {loss} first: {units.number(first.target.seconds.value)} s{level}, "
        f"{first.target.steps.value:g} steps"
    )
    if others:
        return f"{words}; {tied(others)}."
    return f"{words}." if first.target.seconds.level else f"{words}. One launch each is too few to assess ties."


def name(content: Content, cell: Measured) -> str:
    return describe(cell.settings, content.names)


def row(cell: Measured) -> list[Value]:
    target = cell.target
    assert target, "a configuration with a target"
    return [
        Value(f"{target.count} of {len(target.outcomes)}"),
        Value(_steps(target.steps.value), units.interval(target.steps.low, target.steps.high)),
        _value(target.seconds),
    ]


def _steps(steps: float) -> str:
    return f"{steps:,.15g}" if units.is_finite(steps) else units.MISSING


def _value(interval: Interval) -> Value:
    return Value(units.number(interval.value), units.interval(interval.low, interval.high))
