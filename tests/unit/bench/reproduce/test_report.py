"""How the code of a record can be had again."""

from __future__ import annotations

from pathlib import Path

from bench.reproduce import report
from results.source import Source
from tests.fakes import cell


def test_a_commit_that_is_none_is_not_printed_as_a_command(tmp_path: Path) -> None:
    record = cell()
    record.source = Source("", commit="HEAD; rm -rf /", patch="x")
    assert "git checkout" not in report.how_to_have(record, tmp_path)
    record.source = Source("", commit="0123456789abcdef", patch="x", patch_bytes=1)
    assert f"git apply '{tmp_path}/a b/source.patch'" in report.how_to_have(record, tmp_path / "a b")
