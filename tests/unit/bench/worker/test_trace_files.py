"""A trace file is written whole, or there is none and a reason."""

from __future__ import annotations

import errno
import gzip
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.job import TracePlace
from bench.worker import trace_files
from bench.worker.trace_files import TraceFiles
from results.traces import RankTraces, TraceFile

JSON = '{"traceEvents": []}\n'


def written(folder: Path, text: str = JSON, events: int = 0) -> RankTraces:
    """What is left of an attempt to write ``text`` as rank 1's profile."""
    files = TraceFiles(TracePlace(str(folder), "cell"), 1)
    files.write("steps", lambda path: path.write_text(text) and None, events)
    return files.result()


def test_a_file_is_compressed_and_named_by_configuration_and_rank(tmp_path: Path) -> None:
    path = tmp_path / "cell.rank1.json.gz"
    file = TraceFile(1, "steps", f"traces/{path.name}", len(gzip.compress(b"")))
    result = written(tmp_path)
    assert [(one.rank, one.kind, one.name) for one in result.files] == [(file.rank, file.kind, file.name)]
    assert (result.files[0].size_bytes, result.not_written) == (path.stat().st_size, {})
    assert gzip.decompress(path.read_bytes()).decode() == JSON
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def full(path: Path) -> None:
    path.write_text('{"half')
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_a_full_disk_leaves_a_reason_and_no_file(tmp_path: Path) -> None:
    files = TraceFiles(TracePlace(str(tmp_path), "cell"), 0)
    files.write("memory", full)
    assert (files.result().files, list(tmp_path.iterdir())) == ([], [])
    assert "No space left on device (ENOSPC)" in files.result().not_written["memory"]


def test_a_profile_that_was_cut_short_leaves_a_reason_and_no_file(tmp_path: Path) -> None:
    result = written(tmp_path, JSON[:10])
    assert (result.files, list(tmp_path.iterdir())) == ([], [])
    assert "was cut short at 10 bytes; the disk may be full" in result.not_written["steps"]


@pytest.mark.parametrize(
    ("free", "events", "reason"),
    [
        (1 << 60, trace_files.MAX_EVENTS + 1, "2,000,001 events, more than 2,000,000; a lower steps=N"),
        (50 << 20, 1_000_000, "50 MiB are free in FOLDER, and the trace needs up to 381 MiB"),
    ],
)
def test_a_profile_that_is_too_large_is_not_begun(
    free: int, events: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    result = written(tmp_path, events=events)
    assert (result.files, list(tmp_path.iterdir())) == ([], [])
    assert reason.replace("FOLDER", str(tmp_path)) in result.not_written["steps"]


def test_a_host_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    assert "elsewhere does not exist on host" in written(tmp_path / "elsewhere").not_written["steps"]
