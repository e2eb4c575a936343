"""Reading records from disk, and the table that they become."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from analysis.table.frame import COLUMNS, frame, varying
from results.parity import Parity
from results.read import NoRecords, load
from tests.fakes import bare, cell, launch, measured, sweep, troubled_sweep, write_all


def test_a_sweep_folder_its_records_and_their_parent_are_all_understood(tmp_path: Path) -> None:
    folder = write_all(sweep((0,), (1, 2)), tmp_path / "runs" / "a")
    one = next((folder / "records").iterdir())
    for path, count in ((folder, 2), (folder / "records", 2), (tmp_path / "runs", 2), (one, 1)):
        assert len(load([path]).records) == count
    assert len(load([folder, one, folder / "records"]).records) == 2, "a file named twice is read once"


def test_sweeps_are_found_at_any_depth_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for place in ("runs/b/current", "runs/b/base", "runs/nightly/n/sweep", "runs/a"):
        write_all([cell(sweep_id=place)], tmp_path / place)
    sweep_ids = [record.sweep_id for record in load([tmp_path / "runs"]).records]
    assert sweep_ids == ["runs/a", "runs/b/base", "runs/b/current", "runs/nightly/n/sweep"]
    write_all([cell(sweep_id="below")], tmp_path / "runs/a/below")
    assert [record.sweep_id for record in load([tmp_path / "runs/a"]).records] == ["runs/a"]


def test_what_cannot_be_read_is_listed_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    records = write_all(sweep((0,), (1,)), tmp_path) / "records"
    document = json.loads(next(records.iterdir()).read_text())
    spoilt = {
        "a.json": "{",
        "b.json": "[1]",
        "c.json": json.dumps(document | {"schema_version": 99}),
        "d.json": json.dumps(document | {"status": "fine"}),
        "e.json": json.dumps(document | {"resolved": {}}),
        "f.json": json.dumps(document | {"launches": [document["launches"][0] | {"ranks": []}]}),
        "g.json": "[" * 100_000,
    }
    for name, text in spoilt.items():
        (records / name).write_text(text)
    contents = load([tmp_path])
    assert len(contents.records) == 1
    assert [Path(warning.partition(": ")[0]).name for warning in contents.warnings] == sorted(spoilt)
    assert not any("\n" in warning for warning in contents.warnings)
    assert "schema_version is 99" in contents.warnings[2]


def test_no_records_is_an_error_that_says_where_was_looked(tmp_path: Path) -> None:
    with pytest.raises(NoRecords, match="nowhere does not exist"):
        load([tmp_path / "nowhere"])
    with pytest.raises(NoRecords, match=f"no records in {tmp_path}"):
        load([tmp_path])
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(NoRecords, match=r"1 unreadable, first .*x\.json"):
        load([tmp_path])


def test_a_row_holds_what_was_worked_out_by_hand() -> None:
    launches = [launch(0, [[0.010, 0.030]]), launch(1, [[0.020, 0.020]]), launch(2, [[0.030, 0.070]])]
    record = measured(cell(0, 1, launches))
    record.parity = Parity(4, 1e-7, 2e-6, 1e-3, [1.0], [1.0])
    row = frame([record]).iloc[0]
    assert row["step_time_s"] == pytest.approx(0.020)  # medians of launches: 20, 20, 50 ms
    assert row["step_time_s_low"] == pytest.approx(0.020)
    assert row["step_time_s_high"] == pytest.approx(0.050)
    assert row["throughput_per_s"] == pytest.approx(64 * 2 / 0.040)  # 40, 40, 100 ms in all
    assert row["interval_level"] == 0.75
    assert row["parity_error"] == 2e-6
    assert row["final_loss"] == pytest.approx(0.5)
    assert row["model_state_bytes"] == row["model_state_predicted_bytes"]


def test_a_parity_that_is_not_a_number_stays_so() -> None:
    record = cell()
    record.parity = Parity(4, 1e-9, float("nan"), 1e-3, [1.0], [1.0])
    assert frame([record])["parity_error"].isna().all()


def test_cells_that_never_ran_have_a_row_with_nothing_in_it() -> None:
    row = frame([bare("unsupported", "no\nbucket_mb", 3, 4, bucket_mb=25.0)]).iloc[0]
    assert row["status"] == "unsupported"
    assert row["reason"] == "no bucket_mb"
    assert row["gpus"] == 4
    assert row[["step_time_s", "scaling_efficiency", "peak_bytes", "model_state_predicted_bytes"]].isna().all()


def test_parity_failures_have_times_but_no_efficiency() -> None:
    row = frame([cell(), cell(0, 2, status="parity_failed")]).loc[1]
    assert row["step_time_s"] > 0
    assert row[["scaling_efficiency"]].isna().all()


def test_rows_are_sorted_by_settings_and_remember_their_record() -> None:
    records = sweep((1, 0), (2, 1)) + sweep((0,), (1,), bucket_mb=25.0) + sweep((0,), (1,), bucket_mb=5.0)
    table = frame(records)
    order = [(row["bucket_mb"], row["gpus"], row["stage"]) for _, row in table.iterrows()]
    assert order == [(None, 1, 0), (None, 1, 1), (None, 2, 0), (None, 2, 1), (5.0, 1, 0), (25.0, 1, 0)]
    assert [records[at].config["stage"] for at in table.index] == [stage for _, _, stage in order]


def test_a_setting_that_varies_gets_a_column_and_one_that_its_workload_implies_no_name() -> None:
    mlp = {"name": "mlp", "factory": "workloads.mlp:MLP", "layers": 20}
    table = frame([cell(lr=0.1), cell(lr=0.2), cell(lr=0.2, workload=mlp)])
    assert list(table.columns[: len(COLUMNS)]) == COLUMNS
    assert set(table.columns[len(COLUMNS) :]) == {"lr", "workload.width", "workload.depth", "workload.layers"}
    assert varying(table) == ["workload", "lr"]


def test_the_same_cell_of_two_sweeps_is_distinguished_by_its_sweep() -> None:
    table = frame([cell(0, gpus, sweep_id=night) for night in ("monday", "tuesday") for gpus in (1, 2)])
    assert varying(table) == ["gpus", "sweep"]
    assert table["scaling_efficiency"].tolist() == pytest.approx([1.0] * 4)


def test_four_times_the_records_take_about_four_times_as_long() -> None:
    few = [cell(lr=at, launches=record.launches) for at in range(10) for record in sweep(steps=3)]
    many = [cell(lr=at, launches=record.launches) for at in range(40) for record in sweep(steps=3)]
    frame(few)
    spent = []
    for records in (few, many):
        started = time.process_time()
        frame(records)
        spent.append(time.process_time() - started)
    assert spent[1] < 10 * spent[0]


def test_a_troubled_sweep_keeps_all_its_cells() -> None:
    assert frame(troubled_sweep())["status"].value_counts().to_dict() == {
        "ok": 11,
        "parity_failed": 1,
        "timeout": 1,
        "failed": 1,
        "unsupported": 1,
        "oom": 1,
    }


def test_a_record_next_to_sweeps_does_not_hide_them(tmp_path: Path) -> None:
    write_all([cell(0, 2)], tmp_path / "a")
    cell(1, 2).write(tmp_path / "alone.json")
    assert [record.config["stage"] for record in load([tmp_path]).records] == [1, 0]


def test_a_copy_of_a_record_is_read_once(tmp_path: Path) -> None:
    folder = write_all([cell(0, 2), cell(1, 2)], tmp_path / "a")
    copy = write_all([cell(0, 2), cell(3, 2)], tmp_path / "latest" / "a")
    contents = load([tmp_path])
    assert [record.config["stage"] for record in contents.records] == [0, 1, 3]
    assert len(contents.warnings) == 1 and "a copy of a record that was read already" in contents.warnings[0]
    assert len(load([folder]).records) == len(load([copy]).records) == 2
