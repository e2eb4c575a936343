"""Step time at 2, 4 and 8 times the largest measured world size, after a check on the sweep's own sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.metrics.scaling import is_ranked
from analysis.report.model.content import Content
from analysis.report.model.section import ListItem, Points, Section, Table, Value, numbers, table, words
from results.record import world_size

if TYPE_CHECKING:
    from analysis.projection.project import Projection

FACTORS = (2, 4, 8)
LEAST_SIZES = 3
COLUMNS = ("GPUs", "step (ms)", "throughput (/s)", "efficiency", "exposed")


def section(content: Content) -> Section:
    """A table per engine and network, or only the check where no network was measured; empty below three sizes."""
    title, anchor = "Projection to more GPUs", "projection"
    sizes = {world_size(record) for record in content.records if is_ranked(record)}
    if len(sizes) < LEAST_SIZES:
        return Section(title, anchor)
    from analysis.projection.project import project
    from analysis.projection.text import check_lines, knee_lines

    def lines(projection: Projection) -> Points:
        rejected = [f"Not projected: {line}." for line in projection.not_projected]
        texts = [*check_lines(projection), *knee_lines(projection), *rejected]
        return Points([ListItem(text) for text in texts], f"engine {projection.title}")

    projections, _ = project(content.records, [factor * max(sizes) for factor in FACTORS])
    return Section(
        title,
        anchor,
        lists=[lines(one) for one in projections],
        tables=[part for one in projections for part in _tables(one)],
        folded="details",
        notes=[
            "In brackets: the 90 % band. Efficiency is relative to the smallest measured world size. "
            "`python -m analysis project` projects to other sizes and networks (docs/how-to/project.md).",
        ]
        if projections
        else [],
    )


def _tables(projection: Projection) -> list[Table]:
    from analysis.projection.text import cells

    rows: list[list[Value | str]] = []
    for ranks, allowed in projection.rows.items():
        for row in allowed:
            label, *each, exposed, limit, _ = cells(row)
            with_bands = [Value(value, band) for value, band in zip(each[::2], each[1::2], strict=True)]
            rows.append([label, str(ranks), *with_bands, exposed, limit])
    return table([*words("configuration"), *numbers(*COLUMNS), *words("limit")], rows)
