"""The largest model that fits a given memory, for each configuration whose memory was measured."""

from __future__ import annotations

from analysis.advice.model_size import FARTHEST, Fits, fits
from analysis.report.model.content import Content
from analysis.report.model.section import Section, Value, numbers, settings, table
from analysis.text import units


def section(content: Content) -> Section:
    """A row for each configuration that has a bound; empty without ``--gpu-memory``."""
    memory_bytes = content.gpu_memory_bytes
    if not memory_bytes:
        return Section("Largest model that fits", "model-size")
    cell_bounds = [(cell, fits(cell.record, memory_bytes)) for cell in content.cells()]
    rows = [[*content.settings(cell), *row(bounds)] for cell, bounds in cell_bounds if bounds]
    columns = [
        *settings(content.headings),
        *numbers("state (bytes per parameter)", "parameters measured", "at least", "at most", "extrapolated"),
    ]
    missing = "No configuration has a bound: it must end ok with its memory measured, by an engine with known formulas."
    return Section(
        f"Largest model that fits {units.size(memory_bytes)} per rank",
        "model-size",
        prose=[] if rows else [missing],
        tables=table(columns, rows),
        notes=[
            "Parameters whose model state, by the engine's formula, fits with everything else as measured. At least: "
            "every tensor is larger, activations grow in proportion. At most: more layers, same activations.",
            f"Extrapolated: the larger bound over the measured model. Beyond {FARTHEST} times no bound is printed: "
            "measure a larger model.",
        ],
    )


def row(bounds: Fits) -> list[Value]:
    return [
        Value(units.number(bounds.bytes_per_parameter)),
        Value(units.count(bounds.parameters)),
        Value(_bound(bounds, bounds.least)),
        Value(_bound(bounds, bounds.most)),
        Value(f"{units.number(bounds.reach)} ×" if bounds.most else units.MISSING),
    ]


def _bound(bounds: Fits, parameters: int | None) -> str:
    if parameters is None:
        return f"below {units.count(bounds.parameters)}"
    if parameters > FARTHEST * bounds.parameters:
        return f"beyond {FARTHEST} × measured"
    return units.count(parameters)
