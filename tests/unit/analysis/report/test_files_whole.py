"""A report that cannot be written to its end: each of its files is the one before, or the new one, and nothing else."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.report.model.content import Content
from analysis.report.write import write_report
from results.atomic import replacing
from results.store import RecordStore
from tests.fakes import sweep


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """The kernel takes no more of any file, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_each_file_as_it_was_or_as_it_was_to_be(tmp_path: Path) -> None:
    old, new = sweep(stages=(0,), worlds=(1, 2), repeats=3), sweep(stages=(0, 1), worlds=(1, 2), repeats=3, seed=1)
    write_report(Content(new), tmp_path / "to be")
    to_be = content(tmp_path / "to be")
    write_report(Content(old), tmp_path / "report")
    before = content(tmp_path / "report")
    assert before["report.html"] != to_be["report.html"]
    figures = sorted(len(data) for name, data in to_be.items() if name.endswith(".png"))
    page = len(to_be["report.html"])
    changed = []
    for limit in (len(to_be["summary.csv"]) // 2, figures[-1] // 2, max(figures[-1] + 1, page // 2)):
        assert limit < page
        with files_of_at_most(limit), pytest.raises(OSError):
            write_report(Content(new), tmp_path / "report")
        after = content(tmp_path / "report")
        assert [name for name, data in after.items() if data not in (before.get(name), to_be.get(name))] == []
        changed.append(sum(data != before.get(name) for name, data in after.items()))
        assert after["report.html"] == before["report.html"]
    assert changed[0] == 0 < changed[1] < changed[2]  # it came further each time


def test_a_write_that_is_interrupted_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["report.html"]


def test_what_a_killed_process_left_of_a_report_is_cleared_by_the_next_sweep_there(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    parts = [tmp_path / ".report.html.123.partial", tmp_path / "figures" / ".step_time.png.123.partial"]
    for part in parts:
        part.touch()
    RecordStore(tmp_path)
    assert not any(part.exists() for part in parts)
