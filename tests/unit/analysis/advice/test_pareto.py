"""Overlap on against off, and the Pareto front: pairs, ratios, who is on the front and who is left out."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.advice.overlap import overlapped
from analysis.advice.pareto import PRICES, SAVING, front, fronts
from analysis.figures.canvas import INK, PAPER, style
from analysis.figures.pareto import draw, draw_front
from analysis.report.document import advised
from analysis.report.model.content import Content
from analysis.report.sections import overlap, pareto
from analysis.table.frame import frame
from results.record import Record
from tests.fakes import bare, cell, launch, measured, write_report

PACE = [1.0, 1.4, 0.8, 1.1, 1.2, 0.9]


def timed(stage: int, step_s: float, peak_bytes: int = 1_000_000, **changes: object) -> Record:
    launches = [launch(at, [[step_s * pace] * 2] * 2) for at, pace in enumerate(PACE)]
    return measured(cell(stage, 2, launches, **changes), peak_bytes=peak_bytes)


def test_overlap_is_paired_by_rounds_with_the_cell_that_differs_in_nothing_else() -> None:
    records = [
        *(timed(0, step, overlap=on) for step, on in ((0.010, False), (0.008, True))),
        *(timed(3, step, overlap=on) for step, on in ((0.010, False), (0.011, True))),
        timed(1, 0.010, overlap=True),
        timed(2, 0.010, overlap=None),
    ]
    table = frame(records)
    pairs = overlapped(records, table)
    ratios = [(entry.outcome.step.low, entry.outcome.step.value, entry.outcome.step.high) for entry in pairs]
    assert ratios == [pytest.approx((0.8,) * 3), pytest.approx((1.1,) * 3)], "what slows a round cancels"
    (shown,) = overlap.section(Content(records), pairs).tables
    rows = [[value.text for value in row.values] for row in shown.rows]
    assert [(*row[:4], row[-1]) for row in rows] == [
        ("0", "2", "10.5", "8.40", "faster"),
        ("3", "2", "10.5", "11.5", "slower"),
    ]


def test_what_ended_badly_was_simulated_or_ran_in_another_sweep_is_no_pair() -> None:
    records = [timed(0, 0.01, overlap=False), bare("failed", "broke", 0, 2, overlap=True)]
    records += [timed(1, 0.01, overlap=False), timed(1, 0.01, overlap=True)]
    records[3].resolved["simulated"] = True
    records += [timed(2, 0.01, overlap=False), timed(2, 0.01, overlap=True, sweep_id="another night")]
    assert overlapped(records, frame(records)) == []


def test_the_report_shows_overlap_with_a_panel_for_each_setting_that_is_long_to_name(tmp_path: Path) -> None:
    records = [
        timed(stage, 0.010 if on else 0.012, overlap=on, precision=precision, batch_size=batch)
        for stage in (0, 1)
        for on in (True, False)
        for precision in ("fp32", "amp_bf16")
        for batch in (64, 128)
    ]
    paths = write_report(records, tmp_path)
    text = paths.markdown.read_text(encoding="utf-8")
    assert text.count("| 0.833 [0.833, 0.833] | faster |") == 8
    drawn = [path.name for path in paths.figures if path.name.startswith("overlap")]
    assert len(drawn) > 1
    assert "on is faster" in paths.html.read_text(encoding="utf-8")


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=12))
def test_nothing_on_the_front_is_beaten_and_all_else_is(points: list[tuple[int, int]]) -> None:
    """Prices are apart by more than what counts as saved."""
    speeds, prices = [float(speed) for speed, _ in points], [float(price) for _, price in points]
    indices = front(speeds, prices)

    def beaten(at: int) -> bool:
        return any(
            speeds[other] >= speeds[at]
            and prices[other] <= prices[at]
            and (speeds[other] > speeds[at] or prices[other] < prices[at])
            for other in range(len(points))
        )

    assert not any(beaten(at) for at in indices)
    on = {(speeds[at], prices[at]) for at in indices}
    assert all(beaten(at) for at in range(len(points)) if (speeds[at], prices[at]) not in on)
    assert [speeds[at] for at in indices] == sorted((speeds[at] for at in indices), reverse=True)


def test_a_saving_of_less_than_one_per_cent_is_none() -> None:
    assert front([10, 9, 8], [100, 100 * (1 - SAVING / 2), 80]) == [0, 2]


def four() -> list[Record]:
    return [
        timed(0, 0.010, 9_000_000),
        timed(1, 0.012, 12_000_000),  # slower than stage 0 and larger
        timed(2, 0.014, 6_000_000),
        timed(3, 0.020, 3_000_000),
    ]


def front_rows(records: list[Record]) -> list[list[str]]:
    """The section's rows: among, where there are several tasks or world sizes; cost, setting, throughput and price."""
    content = Content(records)
    shown = pareto.section(content, advised(content).fronts).tables
    return [[value.text for value in row.values] for table in shown for row in table.rows]


def test_the_front_is_what_nothing_beats_in_both() -> None:
    assert [tuple(row[:2]) for row in front_rows(four())] == [("memory", f"stage {stage}") for stage in (0, 2, 3)]


UNCOMPARABLE = ["outside_parity", "loss_not_finite", "state_on_servers", "skipped_updates", "no_update"]


@pytest.mark.parametrize("verdict", UNCOMPARABLE)
def test_cells_that_cannot_be_compared_are_on_no_front(verdict: str) -> None:
    records = four()
    records[0].verdicts = [verdict]
    records[3].status = "parity_failed"
    assert [row[1] for row in front_rows(records)] == ["stage 1", "stage 2"]


def test_a_simulated_world_has_no_throughput_and_is_on_no_front() -> None:
    records = four()
    records[0].resolved["simulated"] = True
    assert "stage 0" not in [row[1] for row in front_rows(records)]


def test_energy_has_a_front_where_it_was_counted() -> None:
    records = four()
    for record, joules in zip(records, (8.0, 2.0, 6.0, 1.0), strict=True):
        for one in record.launches:
            one.conditions["cpu_energy_j"] = joules
    rows = [row for row in front_rows(records) if row[0] == "energy"]
    assert [row[1] for row in rows] == ["stage 0", "stage 1", "stage 3"]
    assert rows[0][-1] == "0.0312 J per sample"  # 8 J over 2 steps of 128 samples
    assert {row[0] for row in front_rows(four())} == {"memory"}


def test_different_work_has_a_front_of_its_own(tmp_path: Path) -> None:
    records = [*four(), *(timed(stage, 0.001, 100, workload={"name": "gpt"}) for stage in (0, 1))]
    assert [row[2] for row in front_rows(records) if row[0] == "digits"] == ["stage 0", "stage 2", "stage 3"]
    drawn = [drawing.file.name for plot in draw(fronts(frame(records)), tmp_path) for drawing in plot.drawings]
    assert drawn == ["pareto_memory-01.png", "pareto_memory-02.png"]


def test_the_front_is_shown_by_shape_and_names_and_care_by_hollow_marks_and_crosses() -> None:
    records = four()
    records[2].verdicts = ["oversubscribed"]
    records[3].verdicts = ["throttled"]
    (task_front,) = fronts(frame(records))
    with style():
        figure = draw_front(task_front)
    assert task_front.price is PRICES[0]
    axes = figure.axes[0]
    marks = [(str(line.get_marker()), line.get_markerfacecolor(), len(line.get_xdata())) for line in axes.lines]
    assert marks.count(("D", PAPER, 1)) == 1, "oversubscribed"
    assert ("D", INK, 2) in marks and ("o", INK, 1) in marks
    assert [number for marker, _, number in marks if marker == "x"] == [1, 0], "disturbed, of the front and of others"
    assert [text.get_text() for text in axes.texts] == ["stage 0", "stage 2", "stage 3"]


def test_labels_of_close_marks_do_not_overlap() -> None:
    generator = random.Random(3)
    records = [
        timed(0, 0.010 + 0.0001 * at, 9_000_000 - 150_000 * at - generator.randrange(9000), bucket_mb=float(at + 1))
        for at in range(6)
    ]
    (task_front,) = fronts(frame(records))
    with style():
        figure = draw_front(task_front)
    axes = figure.axes[0]
    figure.canvas.draw()
    assert len(axes.texts) == 6
    boxes = [text.get_window_extent() for text in axes.texts]
    centres = np.array([[(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2] for box in boxes])
    apart = np.abs(centres[:, None] - centres[None]).max(axis=2) + 1e9 * np.eye(6)
    assert apart.min() > 8 * figure.dpi / 72
