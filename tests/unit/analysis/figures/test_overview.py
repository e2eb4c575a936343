"""The first figures of a report: bars per world size with the memory limit, and only what compares something."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.figures import catalogue
from analysis.figures.canvas import WIDTH, style
from analysis.figures.overview import overview
from analysis.figures.step_parts import COLOURS
from analysis.report.model.content import Content
from analysis.report.write import write_report
from analysis.table.frame import frame, measure_all
from analysis.table.panels import layout, panels
from results.record import Record
from tests.fakes import sweep

LONGEST_CAPTION = 190
"""Letters of two lines at the width of a column."""


def drawn(records: list[Record], limit_bytes: float) -> Figure:
    table = frame(records)
    place = layout(table)
    (panel,) = panels(table, place.panels)
    with style():
        figure = overview(panel, place, dict.fromkeys(range(len(records)), limit_bytes))
    assert figure is not None
    return figure


def test_bars_are_throughput_and_peak_memory_by_stage() -> None:
    records = sweep((0, 1, 3), (2,))
    table = frame(records)
    speed, memory = drawn(records, 1e12).axes
    assert [text.get_text() for text in speed.get_yticklabels()] == ["stage 0", "stage 1", "stage 3"]
    widths = [bar.get_width() for bar in speed.patches]
    assert widths == pytest.approx((table["throughput_per_s"] * widths[0] / table["throughput_per_s"].iloc[0]).tolist())
    assert [bar.get_width() * 2**20 for bar in memory.patches] == pytest.approx(table["peak_bytes"].tolist())


def test_the_memory_limit_is_a_line_where_it_is_near_and_words_where_it_would_flatten_the_bars() -> None:
    records = sweep((0, 3), (2,))
    peak = float(frame(records)["peak_bytes"].max())
    near = drawn(records, 1.5 * peak).axes[1]
    assert [float(np.asarray(line.get_xdata())[0]) * 2**20 for line in near.lines] == pytest.approx([1.5 * peak])
    far = drawn(records, 100 * peak).axes[1]
    assert not far.lines and "limit: " in far.get_xlabel()
    assert far.get_xlim()[1] * 2**20 < 2 * peak


def test_panels_of_one_world_size_have_one_scale_and_all_panels_one_unit() -> None:
    table = frame(sweep((0, 3), (1, 2)) + sweep((0, 3), (1, 2), seed=1, precision="amp_bf16"))
    place = layout(table)
    with style():
        figures = [overview(panel, place, {}) for panel in panels(table, [*place.panels, "gpus"])]
    speeds = [figure.axes[0] for figure in figures if figure is not None]
    reach = [axes.get_xlim()[1] for axes in speeds]
    assert reach[0] == reach[2] and reach[1] == reach[3] and reach[0] != reach[1]
    assert len({axes.get_xlabel() for axes in speeds}) == 1


def test_one_world_size_has_no_curve_over_world_size(tmp_path: Path) -> None:
    def names(records: list[Record]) -> set[str]:
        plots = catalogue.draw(measure_all(records), frame(records), tmp_path)
        return {drawing.file.stem.partition("-")[0] for plot in plots for drawing in plot.drawings}

    curves = {"throughput", "scaling_efficiency"}
    assert not curves & names(sweep((0, 3), (2,))) and not curves & names(sweep((0,), (2,)))
    assert curves < names(sweep((0, 3), (1, 2)))


def test_figures_are_at_least_1200_pixels_wide_and_captions_have_two_lines(tmp_path: Path) -> None:
    paths = write_report(Content(sweep((0, 3), (1, 2))), tmp_path)
    for figure in paths.figures:
        assert struct.unpack(">I", figure.read_bytes()[16:20])[0] >= 1200, figure.name
    assert WIDTH <= 4.1, "wider figures have small letters on a phone"
    assert [kind.name for kind in catalogue.KINDS if len(kind.definition) > LONGEST_CAPTION] == []


def test_exposed_communication_is_the_darkest_part_of_a_step() -> None:
    def lightness(colour: str) -> float:
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert min(COLOURS, key=lambda part: lightness(COLOURS[part])) == "exposed"
