"""What a sweep wrote elsewhere because its folder was full comes back when it is resumed; CSV cells are data."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import NoReturn

import pandas as pd
import pytest

from analysis.text.spreadsheet import as_data
from results.read import NoRecords, load
from results.record import Record
from results.store import OF_SWEEP, RESCUED, RecordStore, rescue_folders
from tests.fakes import cell, launch


def test_rescued_records_are_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    record = cell(launches=[launch(0, [[0.01]])])
    store = RecordStore(tmp_path / "sweep")
    records = store.folder / "records"
    records.rmdir()
    records.write_text("")  # cannot be written
    store.write(record)
    store.close()
    assert store.rescued and rescue_folders(tmp_path / "sweep") == [store.folder]
    assert rescue_folders(tmp_path / "another") == []
    records.unlink()
    resumed = RecordStore(tmp_path / "sweep")
    resumed.take_back()
    assert Record.read(records / f"{record.cell_id}.json").launches == record.launches
    assert "1 record(s) taken back" in resumed.warnings[0] and not list((tmp_path / "tmp").iterdir())


def test_a_rescued_record_that_cannot_be_read_is_kept_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rescue = tmp_path / f"{RESCUED}1"
    (rescue / "records").mkdir(parents=True)
    (rescue / OF_SWEEP).write_text(f"{tmp_path / 'sweep'}\n")
    record = cell(launches=[launch(0, [[0.01]])])
    record.write(rescue / "records" / "whole.json")
    damaged = rescue / "records" / "damaged.json"
    damaged.write_text('{"schema_version": ')
    resumed = RecordStore(tmp_path / "sweep")
    resumed.take_back()
    assert Record.read(tmp_path / "sweep" / "records" / "whole.json").launches == record.launches
    assert list((rescue / "records").iterdir()) == [damaged]
    assert f"1 record(s) taken back from {rescue}, which is kept: {damaged}: not a readable" in resumed.warnings[0]


def test_a_folder_that_cannot_be_listed_is_not_called_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(NoRecords, match=f"{tmp_path} cannot be read: Permission denied"):
        load([tmp_path])


def test_links_that_lead_in_a_circle_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    link = tmp_path / "records" / "a.json"
    link.symlink_to(link)
    for place in (tmp_path, link):
        with pytest.raises(NoRecords) as error:
            load([place])
        assert "\n" not in str(error.value) and "a.json" in str(error.value)
    assert os.path.islink(link)


def test_no_csv_cell_is_a_formula() -> None:
    table = pd.DataFrame({"=a": ["=1+1", "@SUM(A1)", "-1.5", "-", "\tx", "digits"], "n": [-1, 2, 3, 4, 5, 6]})
    written = as_data(table)
    assert list(written) == ["'=a", "n"]
    assert written["'=a"].tolist() == ["'=1+1", "'@SUM(A1)", "-1.5", "-", "'\tx", "digits"]
    assert written["n"].tolist() == [-1, 2, 3, 4, 5, 6]
