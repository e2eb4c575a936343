"""The report's numbers, computed again from the record files with nothing of ours: json, csv and statistics."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import pytest

from analysis.report.write import typed
from tests.fakes import sweep, write_all, write_report

Cells = dict[tuple[int, int], dict[str, Any]]
"""By stage and world size."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = write_all(sweep(worlds=(1, 2, 4), repeats=4), tmp_path_factory.mktemp("byhand"))
    write_report(sweep(worlds=(1, 2, 4), repeats=4), home, drawn=False)
    return home


@pytest.fixture(scope="module")
def by_hand(folder: Path) -> Cells:
    """What each record says, by a calculator: docs/reference/metrics.md in ten lines."""
    cells: Cells = {}
    throughputs: dict[tuple[int, int], list[float]] = {}
    for path in (folder / "records").glob("*.json"):
        record = json.loads(path.read_text())
        ranks = [launch["ranks"] for launch in record["launches"]]
        units = record["resolved"]["global_batch"] * record["model"]["units_per_sample"]
        cell = record["config"]["stage"], record["config"]["gpus"]
        throughputs[cell] = [
            units * len(launch[0]["losses"]) / max(rank["wall_s"] for rank in launch) for launch in ranks
        ]
        cells[cell] = {
            "step_time_s": median(median(slowest_steps(launch)) for launch in ranks),
            "throughput_per_s": median(throughputs[cell]),
            "model_state_bytes": max(sum(rank["state_bytes"].values()) for rank in record["memory"]),
            "peak_bytes": max(rank["peak_bytes"] for rank in record["memory"]),
            "parameters": sum(math.prod(each["shape"]) for each in record["model"]["parameters"]),
            "launches": len(record["launches"]),
        }
    for stage, gpus in cells:
        rounds = zip(throughputs[stage, gpus], throughputs[stage, 1], strict=True)
        cells[stage, gpus]["scaling_efficiency"] = median(many / gpus / one for many, one in rounds)
    return cells


def slowest_steps(ranks: list[dict[str, list[float]]]) -> list[float]:
    times = [[a + b for a, b in zip(rank["forward_backward_s"], rank["optimizer_s"], strict=True)] for rank in ranks]
    return [max(step) for step in zip(*times, strict=True)]


def test_summary_csv_holds_what_a_calculator_finds(folder: Path, by_hand: Cells) -> None:
    with open(folder / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(by_hand) == 12
    for row in rows:
        for name, value in by_hand[int(row["stage"]), int(row["gpus"])].items():
            assert float(row[name]) == pytest.approx(value, rel=1e-12), name


def test_report_md_prints_what_a_calculator_finds_to_the_digits_it_shows(folder: Path, by_hand: Cells) -> None:
    lines = (folder / "report.md").read_text().splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("| stage | ranks | status"))
    names = [cell.strip() for cell in lines[start].split("|")[1:-1]]
    checked = 0
    for line in lines[start + 2 : start + 2 + len(by_hand)]:
        shown = dict(zip(names, (cell.strip() for cell in line.split("|")[1:-1]), strict=True))
        cell = by_hand[int(shown["stage"]), int(shown["ranks"])]
        for name, value in (
            ("step (ms)", cell["step_time_s"] * 1e3),
            ("samples/s", cell["throughput_per_s"]),
            ("efficiency", cell["scaling_efficiency"] * 100),
            ("state (MiB)", cell["model_state_bytes"] / 2**20),
            ("peak (MiB)", cell["peak_bytes"] / 2**20),
        ):
            if shown[name] == "baseline":
                assert shown["ranks"] == "1"
                continue
            printed = re.match(r"[\d,.]+", shown[name])
            assert printed, (name, shown[name])
            digits = printed.group().replace(",", "")
            last_place = 10.0 ** -len(digits.partition(".")[2])
            assert abs(float(digits) - value) <= 0.5001 * last_place, (name, shown[name], value)
            assert float(digits) > 0
            checked += 1
    assert checked == 60 - 4, "the smallest world is its own baseline"


def test_summary_parquet_holds_the_same_and_keeps_its_types(folder: Path) -> None:
    read = pd.read_parquet(folder / "summary.parquet")
    with open(folder / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(read.columns) == list(rows[0])
    assert len(read) == len(rows)
    for name in ("step_time_s", "model_state_bytes", "engine", "verdicts"):
        assert [str(value) for value in read[name]] == [row[name] for row in rows]
    assert str(read["peak_bytes"].dtype) == "Int64" and str(read["step_time_s"].dtype) == "float64"
    pd.testing.assert_frame_equal(typed(read), read)


def test_parquet_keeps_settings_of_mixed_types_and_missing_values(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "bucket_mb": pd.Series([None, 25.0, 4], dtype=object),
            "overlap": pd.Series([None, True, False], dtype=object),
            "workload.sizes": pd.Series([[1, 2], "big", None], dtype=object),
            "nothing": pd.Series([None, None, None], dtype=object),
            "peak_bytes": [1.0, 2.0, math.nan],
        }
    )
    written = typed(table)
    assert [str(dtype) for dtype in written.dtypes] == ["float64", "boolean", "str", "float64", "Int64"]
    written.to_parquet(tmp_path / "t.parquet", index=False)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), written)
    assert written["workload.sizes"][0] == "[1, 2]"
