"""Trace files per rank: links to them, and how to open them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from analysis.metrics.measured import Measured
from analysis.report.model.content import Content
from analysis.report.model.section import FileLink, ListItem, Points, Section
from analysis.table.panels import describe
from results.traces import KINDS, TraceFile

WORDS = {"steps": "profiled steps", "memory": "memory of a step", "snapshot": "allocator snapshot"}


def section(content: Content, folder: Path | None) -> Section:
    """A point for each configuration with trace files; linked where they are in ``folder``, the report's own."""
    cells = content.where(lambda cell: cell.record.traces is not None)
    return Section(
        "Traces",
        "traces",
        lists=[Points([point for cell in cells for point in points(content, cell, folder)])] if cells else [],
        folded="all",
        notes=[
            "Profiled steps and memory: open the file in ui.perfetto.dev, or in chrome://tracing. Allocator snapshot: "
            "pytorch.org/memory_viz. How to read them: docs/how-to/trace.md."
        ],
    )


def points(content: Content, cell: Measured, folder: Path | None) -> Iterator[ListItem]:
    """One for each kind of file of a configuration, with a link per rank or the reason that there is none."""
    traces = cell.record.traces
    assert traces is not None, "the section has traced configurations only"
    about = describe(cell.settings, content.names)
    for kind in KINDS:
        files = sorted((file for file in traces.files if file.kind == kind), key=lambda file: file.rank)
        missing = traces.not_written.get(kind, "")
        if not files and not missing:
            continue
        links = [FileLink(f"rank {file.rank}", file.name) for file in files if is_here(file, folder)]
        elsewhere = files and not links
        place = f"{len(files)} files, such as {files[0].name} in the sweep's folder" if elsewhere else ""
        yield ListItem(
            f"{WORDS[kind]}: {place}", about, links=links, quoted=f"not written: {missing}" if missing else ""
        )
        about = ""


def is_here(file: TraceFile, folder: Path | None) -> bool:
    return folder is not None and (folder / file.name).is_file()
