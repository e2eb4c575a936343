"""Hot paths of the suite around the engines: a launch, a record written and read, and what analysis does with many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from analysis.advice.recommend import AdviceLimits, advise
from analysis.comparison.counter_check import differences, measured
from analysis.table.frame import frame
from bench import engines
from bench.launch.launcher import Launcher
from bench.launch.local import LocalLauncher
from benchmarks.launch_overhead import trivial_job
from benchmarks.test_engine_paths import cpu_time
from results.read import load
from results.record import Record
from tests.fakes import sweep, write_all


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with LocalLauncher(engines.preload("bench.engines.torch")) as warm:
        yield warm


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """64 cells of five launches and twenty steps."""
    return [record for seed in range(4) for record in sweep(seed=seed, lr=1e-3 * (1 + seed))]


@pytest.mark.parametrize("ranks", [1, 4])
def test_ranks_are_launched_and_end(ranks: int, launcher: Launcher, benchmark: BenchmarkFixture) -> None:
    result = benchmark.pedantic(launcher.launch, args=[trivial_job(ranks)], rounds=8, iterations=1, warmup_rounds=1)
    assert result.status == "ok", result


def test_a_record_is_written(records: list[Record], tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    path = tmp_path / "record.json"
    benchmark(records[15].write, path)
    assert Record.read(path) == records[15]


@cpu_time
def test_a_record_is_read(records: list[Record], tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    path = tmp_path / "record.json"
    records[15].write(path)
    assert benchmark(Record.read, path) == records[15]


@cpu_time
def test_a_folder_of_records_is_read(records: list[Record], tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    folder = write_all(records, tmp_path / "sweep")
    sweeps = benchmark.pedantic(load, args=[[folder]], rounds=5, iterations=1, warmup_rounds=1)
    assert len(sweeps.records) == 64


@cpu_time
def test_the_table_of_cells_is_made(records: list[Record], benchmark: BenchmarkFixture) -> None:
    table = benchmark.pedantic(frame, args=[records], rounds=5, iterations=1, warmup_rounds=1)
    assert len(table) == 64


@cpu_time
def test_settings_are_advised(records: list[Record], benchmark: BenchmarkFixture) -> None:
    table = frame(records)
    limits = AdviceLimits(memory_bytes=None, efficiency=None, gpus=None)
    assert benchmark.pedantic(advise, args=[records, table, limits], rounds=5, iterations=1, warmup_rounds=1)


@cpu_time
def test_the_exact_gate_compares(records: list[Record], benchmark: BenchmarkFixture) -> None:
    one = measured(records[:16])
    assert benchmark(lambda: differences(one, measured(records[:16]))) == []
