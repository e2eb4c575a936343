"""Where records are looked for: in a sweep, in folders of sweeps, and not everywhere below a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.commands.report import home
from results import read
from results.read import NoRecords, load, record_files
from tests.fakes import cell, write_all


def test_folders_of_sweeps_are_searched_to_a_depth_and_no_further(tmp_path: Path) -> None:
    for depth in range(1, 6):
        write_all([cell(sweep_id=f"depth {depth}")], tmp_path.joinpath(*["x"] * depth, f"at{depth}"))
    depths = {record.sweep_id for record in load([tmp_path]).records}
    assert depths == {"depth 1", "depth 2"}


def test_hidden_folders_and_links_are_not_searched(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    write_all([cell(sweep_id="elsewhere")], elsewhere / "sweep")
    place = tmp_path / "place"
    write_all([cell(sweep_id="hidden")], place / ".cache" / "sweep")
    (place / "link").symlink_to(elsewhere)
    assert record_files(place) == []
    write_all([cell(sweep_id="plain")], place / "sweep")
    assert [record.sweep_id for record in load([place]).records] == ["plain"]


def test_a_place_with_too_many_folders_is_rejected_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MAX_FOLDERS", 3)
    for name in "abcd":
        (tmp_path / name).mkdir()
    with pytest.raises(NoRecords, match=r"is no sweep's folder .* name the folders of sweeps") as rejection:
        record_files(tmp_path)
    assert "\n" not in str(rejection.value)


def test_a_report_is_written_into_a_sweeps_own_folder_only(tmp_path: Path) -> None:
    sweep = write_all([cell()], tmp_path / "runs" / "a")
    assert home([sweep]) == home([sweep / "records"]) == sweep
    for elsewhere in ([tmp_path], [tmp_path / "runs"], [sweep, sweep], [next((sweep / "records").iterdir())], []):
        assert home(elsewhere) == Path("report")
