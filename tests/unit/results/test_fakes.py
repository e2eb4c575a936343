"""Made-up records are records."""

from __future__ import annotations

from pathlib import Path

from results.record import Record
from tests.fakes import troubled_sweep


def test_a_made_up_record_survives_being_written_and_read(tmp_path: Path) -> None:
    record = troubled_sweep()[0]
    record.write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == record
