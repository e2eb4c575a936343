"""The parts of a step, in ms, and what communication costs by two instruments."""

from __future__ import annotations

from analysis.metrics.measured import Measured
from analysis.metrics.step_parts import PARTS, WORDS
from analysis.report.model.content import DEFINITIONS, Content
from analysis.report.model.section import Section, Value, numbers, words
from analysis.text import units
from results.attribution import Attribution, Spread


def section(content: Content) -> Section:
    """A row for each configuration whose steps were attributed."""
    cells = content.where(lambda cell: cell.record.attribution is not None)
    return Section(
        "What a step is made of",
        "step-parts",
        tables=content.cell_table(
            cells,
            row,
            numbers(*(f"{WORDS.get(part, part)} (ms)" for part in PARTS)),
            numbers("overlap", "cost, profiled (ms)", "cost, removed (ms)"),
            words("notes"),
        ),
        folded="details",
        notes=[
            "Parts of a profiled step, mean over steps and ranks; they exclude each other and add up to the step. Cost "
            "of communication, exposed and waiting: profiled, and as the time that a step without communication saves.",
            f"In brackets: the range of the samples. {DEFINITIONS}",
        ],
    )


def row(cell: Measured) -> list[Value]:
    attribution = cell.record.attribution
    assert attribution is not None, "the section has attributed configurations only"
    profiled, removed = attribution.profiled_s(), attribution.removed_s(cell.record.launches)
    return [
        *(Value(units.ms(cell.step[f"{part}_part_s"])) for part in PARTS),
        Value(units.percent(cell.step["overlap_ratio"])),
        Value(units.ms(cell.step["exposed_profiled_s"]), span(profiled)),
        Value(units.ms(cell.step["exposed_removed_s"]), span(removed)),
        Value("; ".join(notes(attribution))),
    ]


def span(spread: Spread | None) -> str:
    return "" if spread is None else units.interval(spread.low, spread.high, 1e3)


def notes(attribution: Attribution) -> list[str]:
    """Parts that could not be measured, and why."""
    reasons = (
        ("not profiled", attribution.unprofiled),
        ("not timed without communication", attribution.not_silenced),
        ("waiting for stragglers counts as exposed", attribution.straggler_unknown),
    )
    return [f"{what}: {reason}" for what, reason in reasons if reason]
