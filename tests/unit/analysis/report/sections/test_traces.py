"""The report links trace files that lie next to it, says why others are missing, and draws the memory of a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.figures.canvas import style
from analysis.figures.memory_over_time import memory_over_time
from analysis.report import html, markdown
from analysis.report.document import document
from analysis.report.model.content import Content
from analysis.report.model.section import ListItem
from analysis.report.sections.traces import section
from analysis.table.frame import frame
from analysis.table.panels import layout, panels
from results.record import Record
from results.traces import MemoryTimeline, PhaseStart, TraceFile, Traces
from tests.fakes import cell, measured

NAME = "traces/torch-s0-n2.rank{}.json.gz"
STEP = MemoryTimeline(
    rank=1,
    duration_s=0.010,
    phases=[PhaseStart("forward", 0.0), PhaseStart("backward", 0.004), PhaseStart("update", 0.009)],
    times_s=[0.0, 0.002, 0.006],
    bytes_by_kind={"params": [2 << 20] * 3, "activations": [0, 1 << 20, 0], "temporaries": [0, 1 << 19, 1 << 18]},
)


def traced(stage: int = 0) -> Record:
    files = [TraceFile(rank, "steps", NAME.format(rank), 9) for rank in (0, 1)]
    return measured(cell(stage, 2, traces=Traces(files, {"memory": "no space left"}, STEP)))


def test_files_next_to_the_report_are_links_and_missing_ones_have_a_reason(tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    (tmp_path / NAME.format(1)).touch()
    whole = document(Content([measured(cell(0, 2)), traced(3)]), folder=tmp_path)
    page, text = html.render(whole), markdown.render(whole)
    assert f'href="{NAME.format(1)}"' in page and f"[rank 1]({NAME.format(1)})" in text
    assert NAME.format(0) not in page + text
    assert "not written: no space left" in page


def test_a_report_elsewhere_names_the_files_without_links(tmp_path: Path) -> None:
    files, missing = points_of(traced(), tmp_path)
    assert not files.links and files.text.endswith(f"2 files, such as {NAME.format(0)} in the sweep's folder")
    assert missing.quoted == "not written: no space left"


def points_of(record: Record, folder: Path) -> list[ListItem]:
    return [point for entry in section(Content([record]), folder).lists for point in entry.points]


def test_the_figure_stacks_the_bytes_of_each_use_up_to_the_peak() -> None:
    table = frame([traced()])
    (panel,) = panels(table, [])
    with style():
        figure = memory_over_time(panel, layout(table), {0: STEP})
    assert figure is not None
    (axes,) = figure.axes
    tops = [max(np.asarray(path.vertices)[:, 1].max() for path in one.get_paths()) for one in axes.collections]
    assert tops == pytest.approx([2.0, 3.0, 3.5])
    assert [text.get_text() for text in axes.texts] == ["forward", "backward", "update"]
