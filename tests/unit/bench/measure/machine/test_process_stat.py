"""Fields of /proc/PID/stat."""

from __future__ import annotations

from pathlib import Path

from bench.measure.machine import process_stat


def test_a_name_with_spaces_and_brackets_shifts_no_field(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("7 (a) b (c) S 1 7")
    assert process_stat.fields(tmp_path) == ["S", "1", "7"]


def test_what_has_ended_has_none(tmp_path: Path) -> None:
    assert process_stat.fields(tmp_path / "gone") == []
