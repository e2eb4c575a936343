"""What scaling loss is made of: parts that add up to it, what is left unexplained, and how to get them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from analysis.report.model.content import Content
from analysis.report.sections.scaling_loss import how_to_attribute, row, section
from analysis.table.frame import frame
from results.attribution import Attribution
from results.record import Record
from tests.fakes import attributed, cell, launch, sweep, write_report

PARTS = ["compute", "optimizer", "exposed", "straggler", "host", "unexplained"]


def timed(gpus: int, step_s: float, global_batch: int | None = None) -> Record:
    record = cell(0, gpus, [launch(at, [[step_s] * 2] * gpus) for at in range(3)])
    if global_batch:
        record.resolved["global_batch"] = global_batch
    return record


def lost(*records: Record) -> dict[str, float]:
    """The last cell's loss by part, in per cent."""
    row = frame(list(records)).iloc[-1]
    assert 1 - row["scaling_efficiency"] == pytest.approx(sum(row[f"efficiency_loss_{part}"] for part in PARTS))
    return {part: round(100 * row[f"efficiency_loss_{part}"], 6) for part in PARTS}


def test_of_weak_scaling_what_a_step_gains_is_what_is_lost() -> None:
    one = attributed(timed(1, 0.080), compute_s=0.060, optimizer_s=0.010, host_s=0.010)
    two = attributed(
        timed(2, 0.100), compute_s=0.064, optimizer_s=0.006, exposed_s=0.012, straggler_s=0.005, host_s=0.013
    )
    assert lost(one, two) == pytest.approx(
        {"compute": 4, "optimizer": -4, "exposed": 12, "straggler": 5, "host": 3, "unexplained": 0}
    )


def test_of_strong_scaling_what_is_not_shared_out_is_lost() -> None:
    one = attributed(timed(1, 0.080), compute_s=0.070, optimizer_s=0.010)
    two = attributed(timed(2, 0.050, 64), compute_s=0.035, optimizer_s=0.010, exposed_s=0.005)  # 100 of 160 rank-ms
    assert lost(one, two) == pytest.approx(
        {"compute": 0, "optimizer": 10, "exposed": 10, "straggler": 0, "host": 0, "unexplained": 0}
    )


def test_making_the_batch_is_no_loss_and_what_the_profile_adds_to_one_side_is_unexplained() -> None:
    one = attributed(timed(1, 0.080), compute_s=0.080, data_s=0.030)
    two = attributed(timed(2, 0.100), compute_s=0.080, exposed_s=0.040, data_s=0.090)
    assert lost(one, two) == pytest.approx(
        {"compute": 0, "optimizer": 0, "exposed": 40, "straggler": 0, "host": 0, "unexplained": -20}
    )
    records = [one, two]
    lost_share, *parts, unexplained, notes = (value.text for value in row(Content(records).measured[1], PARTS[:-1]))
    assert notes == "its profiled steps took 1.20 times the timed ones"
    assert (lost_share, unexplained, parts[2]) == ("20 %", "-20.0", "+40.0")


def test_waiting_for_data_is_a_part_where_timed_steps_wait() -> None:
    one = attributed(timed(1, 0.080), compute_s=0.060, data_s=0.020)
    two = attributed(timed(2, 0.100), compute_s=0.060, data_s=0.040)
    for record in (one, two):
        record.config["data"] = "loader"
    row = frame([one, two]).iloc[-1]
    assert row["efficiency_loss_data"] == pytest.approx(0.2)
    assert row["efficiency_loss_unexplained"] == pytest.approx(0)
    assert notes([one, two]) == [""]
    assert "data" in [column.heading for column in section(Content([one, two])).tables[0].columns]


def notes(records: list[Record]) -> list[str]:
    """What the section says of each configuration's parts."""
    return [values.values[-1].text for table in section(Content(records)).tables for values in table.rows]


def test_a_cell_without_parts_says_how_to_get_them(tmp_path: Path) -> None:
    one, two = attributed(timed(1, 0.080), compute_s=0.080), timed(2, 0.100)
    two.attribution = Attribution(unprofiled="the engine refused")
    four = timed(4, 0.1)
    records = [one, two, four]
    assert notes(records) == ["not profiled: the engine refused", "not profiled: run with measure=full"]
    one.attribution = None
    attributed(two, compute_s=0.1)
    assert notes(records)[0] == "its baseline, 1 rank, was not profiled: run with measure=full"
    paths = write_report(records, tmp_path)
    assert not any("scaling_loss" in path.name for path in paths.figures), "there is nothing to draw"


def test_where_nothing_was_attributed_one_sentence_explains() -> None:
    records = sweep((0,), (1, 2))
    assert section(Content(records)).is_empty
    assert how_to_attribute(Content(records)) == "To see where scaling efficiency is lost: run with measure=full."
    assert how_to_attribute(Content(records[:1])) == "", "one world loses nothing"


def test_the_parts_are_in_the_table_the_report_and_the_figure(tmp_path: Path) -> None:
    one = attributed(timed(1, 0.080), compute_s=0.070, optimizer_s=0.010)
    two = attributed(timed(2, 0.100), compute_s=0.070, optimizer_s=0.006, exposed_s=0.024)
    paths = write_report([one, two], tmp_path)
    assert "| 0 | 2 | 20 % [20.0, 20.0] | +0.0 | -4.0 | +24.0 | +0.0 | +0.0 | +0.0 |" in paths.markdown.read_text()
    with open(paths.csv, newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (first["efficiency_loss_exposed"], float(second["efficiency_loss_exposed"])) == ("", pytest.approx(0.24))
    (drawn,) = (path for path in paths.figures if "scaling_loss" in path.name)
    page = paths.html.read_text(encoding="utf-8")
    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert ">20 % lost</text>" in page, "the loss stands by its bar"
