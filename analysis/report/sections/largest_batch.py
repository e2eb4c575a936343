"""The largest batch that fits a memory limit, for each configuration that searched for it."""

from __future__ import annotations

from analysis.metrics.largest_batch import search_columns
from analysis.metrics.measured import Measured
from analysis.report.model.content import Content
from analysis.report.model.section import Section, Value, numbers
from analysis.text import units


def section(content: Content) -> Section:
    """A row for each configuration that searched."""
    cells = content.where(lambda cell: cell.record.search is not None)
    return Section(
        "Largest batch that fits",
        "largest-batch",
        tables=content.cell_table(
            cells,
            row,
            numbers("memory limit", "largest batch per rank", "peak at it (MiB)", "smallest that does not fit"),
            numbers("launches"),
        ),
        notes=[
            "Samples per step and rank; each batch is tried in a launch of its own. The peak is that of the rank that "
            "allocated most. Such a configuration measures memory only: no times, no parity."
        ],
    )


def row(cell: Measured) -> list[Value]:
    columns = search_columns(cell.record)
    largest = f"{columns['max_batch']:.0f}" if columns["max_batch"] else "none"
    limit, unfit = columns["memory_limit_bytes"], columns["unfit_batch"]
    return [
        Value(units.size(limit) if units.is_finite(limit) else "the GPU's"),
        Value(largest if cell.is_ok else f"{largest} so far"),
        Value(units.mib(columns["max_batch_peak_bytes"])),
        Value(f"{unfit:.0f}" if units.is_finite(unfit) else "no larger one was tried"),
        Value(f"{columns['search_tried']:.0f}"),
    ]
