"""Errors of projections are counted over held-out cases, and crowded ones are left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.projection_error import crowded, held_out, main, summary
from results.record import Record
from tests.simulated_training import Cluster


def records(own_cpu_s: float = 0.0) -> list[Record]:
    made = []
    for stage in (0, 2):
        for ranks in (1, 2, 4, 8):
            record = Cluster(layers=4).record(stage, ranks, launches=3, steps=4)
            conditions = {"own_cpu_s": own_cpu_s, "cpus": 2.0}
            record.launches = [replace(launch, conditions=conditions) for launch in record.launches]
            made.append(record)
    return made


def test_every_size_above_the_fitted_ones_is_a_case() -> None:
    pairs = held_out(records(), 2)
    assert [(case.stage, case.fitted_to, case.ranks, case.factor) for case, _ in pairs] == [
        (stage, 2, ranks, ranks // 2) for stage in (0, 2) for ranks in (4, 8)
    ]
    assert all(abs(case.error) < 0.1 for case, _ in pairs)


def test_processor_time_of_ranks_that_share_cores_leaves_a_case_out() -> None:
    record = records(own_cpu_s=1.0)[0]
    assert crowded(record) == pytest.approx(0.5 / sum(record.launches[0].step_times_s()), rel=0.05)
    (row,) = summary(held_out(records(own_cpu_s=10.0), 4), most=0.1)
    assert (row["cases"], row["left_out"]) == (0, 2)


def test_cases_and_summary_are_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sweep" / "records"
    folder.mkdir(parents=True)
    for record in records():
        record.write(folder / f"{record.cell_id}.json")
    out = tmp_path / "errors.json"
    page = tmp_path / "page.md"
    assert main([str(tmp_path / "sweep"), "--fit", "4", "--out", str(out), "--page", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "| 2 | 2 | 0 |" in printed and "| torch | 0 | 1 | 0 |" in printed
    assert page.read_text().startswith("# Errors of projections") and page.read_text().endswith(printed)
    assert len(json.loads(out.read_text())["cases"]) == 2
