"""Builds a report's document: every section in the order in which it is shown, and what the first screen has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from analysis.advice import overlap as overlap_advice
from analysis.advice import pareto as pareto_advice
from analysis.advice.bucket_size import Curve, curves
from analysis.advice.overlap import Overlapped
from analysis.advice.pareto import Front
from analysis.figures.plot import Plot
from analysis.report.model.content import Content
from analysis.report.model.section import Document, Section
from analysis.report.sections import (
    answer,
    bucket_size,
    collectives,
    communication,
    configurations,
    hosts,
    input_pipeline,
    largest_batch,
    memory,
    model_size,
    offload,
    overlap,
    pareto,
    problems,
    projection,
    scaling_loss,
    serial_fraction,
    source,
    step_parts,
    target,
    traces,
)
from analysis.table import provenance
from results.record import STATUSES

FIGURES = Section("Bytes, scaling and launches", "overview")
RESIDUAL = Section("Residual of the predicted peak", "memory-residual", folded="all")
"""Sections of figures alone; others show theirs with their tables."""


@dataclass(frozen=True)
class Advised:
    """Advice that both tables and figures show."""

    curves: list[Curve]
    overlapped: list[Overlapped]
    fronts: list[Front]


def advised(content: Content) -> Advised:
    records, table = content.records, content.table
    return Advised(curves(records, table), overlap_advice.overlapped(records, table), pareto_advice.fronts(table))


def document(
    content: Content, advice: Advised | None = None, plots: Sequence[Plot] = (), folder: Path | None = None
) -> Document:
    """The report on ``content``; each of ``plots`` goes to the section that it names. ``folder``: the report's own."""
    advice = advice or advised(content)
    shown = []
    for section in _sections(content, advice, folder):
        whole = replace(section, figures=[plot for plot in plots if plot.section == section.anchor])
        if not whole.is_empty:
            shown.append(whole)
    counts = content.table["status"].value_counts()
    environments = {str(record.environment): record.environment for record in content.records}
    started = [launch.started_at for record in content.records for launch in record.launches]
    return Document(
        title=content.title,
        sweep=provenance.sweep_line(content.records, content.table),
        machines=list(dict.fromkeys(map(provenance.machine_line, environments.values()))),
        date=min(started, default="")[:16].replace("T", " "),
        counts=[(status, int(counts[status])) for status in STATUSES if status in counts],
        alerts=problems.alerts(content),
        sections=shown,
    )


def _sections(content: Content, advice: Advised, folder: Path | None) -> Iterator[Section]:
    answered = answer.sections(content)
    yield from answered[:1]
    yield collectives.section(content)
    yield FIGURES
    yield from answered[1:]
    yield configurations.section(content)
    yield largest_batch.section(content)
    yield target.section(content)
    yield input_pipeline.section(content)
    yield communication.section(content)
    yield step_parts.section(content)
    yield scaling_loss.section(content)
    yield hosts.across(content)
    yield serial_fraction.section(content)
    yield projection.section(content)
    yield pareto.section(content, advice.fronts)
    yield bucket_size.section(content, advice.curves)
    yield overlap.section(content, advice.overlapped)
    yield memory.section(content)
    yield RESIDUAL
    yield offload.section(content)
    yield model_size.section(content)
    yield traces.section(content, folder)
    yield hosts.section(content)
    yield from problems.sections(content)
    yield from source.sections(content)
