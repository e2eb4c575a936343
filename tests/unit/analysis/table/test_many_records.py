"""Thousands of records stay affordable: what analysis does grows with their number, and no faster."""

from __future__ import annotations

import cProfile
import pstats
from pathlib import Path

import pytest

from analysis.figures import catalogue
from analysis.report.document import document
from analysis.report.model.content import Content
from analysis.report.terminal import MOST_TABLES, print_summary
from analysis.statistics import medians
from analysis.table.frame import frame
from analysis.table.panels import FEW_PANELS, MOST_PANELS
from results.read import load
from results.record import Record
from tests.fakes import sweep, write_all, write_report


def many(settings: int) -> list[Record]:
    """Four cells each of so many settings."""
    return [
        record
        for bucket in range(1, settings + 1)
        for record in sweep((0, 3), (1, 2), repeats=2, steps=4, bucket_mb=float(bucket), precision="fp32")
    ]


def calls(folder: Path) -> int:
    """Function calls of all that a report does but drawing, which is bounded by itself."""
    profile = cProfile.Profile()
    with profile:
        contents = load([folder])
        document(Content(contents.records))
    return int(pstats.Stats(profile).total_calls)


def test_four_times_the_records_take_about_four_times_the_calls(tmp_path: Path) -> None:
    few, more = (write_all(many(count), tmp_path / str(count)) for count in (10, 40))
    calls(few)  # what is done once
    assert 2 < calls(more) / calls(few) < 5


def test_a_cell_takes_a_fixed_number_of_bootstraps() -> None:
    profile = cProfile.Profile()
    records = many(10)
    with profile:
        frame(records)
    counted = sum(entry.callcount for entry in profile.getstats() if entry.code is medians._medians.__code__)
    assert counted == 10 * (4 * 2 + 2), "time and throughput of each cell, and one for each efficiency"


def test_too_many_panels_are_not_drawn_and_too_many_tables_not_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "KINDS", [kind for kind in catalogue.KINDS if kind.name == "throughput"])
    records = [
        record
        for wide in range(MOST_PANELS + 1)
        for record in sweep((0, 3), (1, 2), repeats=2, steps=4, lr=1e-3 * (1 + wide))
    ]
    paths = write_report(records, tmp_path)
    drawn = [path for path in paths.figures if path.name.startswith("throughput")]
    assert len(drawn) == FEW_PANELS
    assert f"{MOST_PANELS + 1 - FEW_PANELS} more panels are not drawn" in paths.markdown.read_text()
    print_summary(Content(records), None)
    printed = capsys.readouterr().out
    assert printed.count("eff.  ") == MOST_TABLES
    assert "and 1 more setting, each with a table of its own: in the report" in printed
