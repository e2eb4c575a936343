"""Loss of scaling efficiency by part of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.metrics.measured import Measured
from analysis.metrics.scaling_loss import parts_of, profiled_over_timed
from analysis.metrics.step_parts import WORDS
from analysis.report.model.content import DEFINITIONS, Content
from analysis.report.model.section import Section, Value, numbers, words
from analysis.text import units
from results.attribution import Attribution
from results.record import Record, world_size

HOW = "run with measure=full"

STRETCH = 0.1
"""Share by which profiled steps may differ from timed ones without a note."""


def section(content: Content) -> Section:
    """A row for each configuration larger than its baseline; none if no step was attributed."""
    cells = [] if how_to_attribute(content) else grown(content)
    parts = parts_of(*(cell.record for cell in cells))
    return Section(
        "Where scaling efficiency is lost",
        "scaling-loss",
        tables=content.cell_table(
            cells,
            lambda cell: row(cell, parts),
            numbers("lost", *(WORDS.get(part, part) for part in parts), "unexplained"),
            words("notes"),
        ),
        folded="details",
        notes=[
            "Lost: 1 - scaling efficiency, with its interval. Parts: additional time for the same work relative to the "
            "baseline, in % of a rank's time; negative where it is less. They add up to what is lost.",
            f"Parts are from one profiled launch each and have no interval. {DEFINITIONS}",
        ],
    )


def grown(content: Content) -> list[Measured]:
    """The configurations that are measured against a smaller world."""
    return content.where(lambda cell: cell.baseline is not None)


def how_to_attribute(content: Content) -> str:
    """The command that attributes scaling loss, where no step was attributed; else empty."""
    cells = grown(content)
    missing = cells and all(cell.record.attribution is None for cell in cells)
    return f"To see where scaling efficiency is lost: {HOW}." if missing else ""


def row(cell: Measured, parts: Sequence[str]) -> list[Value]:
    assert cell.efficiency is not None and cell.baseline is not None, "a configuration beyond its baseline"
    interval = cell.efficiency.interval
    return [
        Value(units.percent(1 - interval.value), units.interval(1 - interval.high, 1 - interval.low, 100)),
        *(Value(points(cell.loss[f"efficiency_loss_{part}"])) for part in parts),
        Value(points(cell.loss["efficiency_loss_unexplained"])),
        Value("; ".join(notes(cell.record, cell.baseline, cell.warnings))),
    ]


def points(share: float) -> str:
    """A share in per cent to one decimal, with its sign, such as ``+3.4``."""
    return f"{round(100 * share, 1) + 0.0:+.1f}" if units.is_finite(share) else units.MISSING


def notes(record: Record, base: Record, warnings: Sequence[str]) -> list[str]:
    """Why there are no parts, or what limits them."""
    baseline = f"its baseline, {units.counted(world_size(base), 'rank')}, was not profiled"
    for side, what in ((record, "not profiled"), (base, baseline)):
        attribution = side.attribution or Attribution()
        if not attribution.steps:
            return [f"{what}: {attribution.unprofiled or HOW}"]
    lines = []
    for side, whose in ((record, "its profiled steps"), (base, "its baseline's profiled steps")):
        if abs(math.log(ratio := profiled_over_timed(side))) > math.log1p(STRETCH):
            lines.append(f"{whose} took {ratio:.2f} times the timed ones")
    if "instruments_disagree" in warnings:
        lines.append("instruments disagree")
    if "oversubscribed" in warnings:
        lines.append("oversubscribed: the ranks share cores")
    return lines
