"""The search for the largest batch: it must find what trying every batch finds, whatever memory does between."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.report.mlflow_fields import cell_metrics, metric_names
from analysis.report.model.content import Content
from analysis.report.terminal import print_summary
from analysis.table.frame import frame
from bench.checks import ConfigError, check
from bench.plan.jobs import Jobs
from bench.plan.resolve import plan
from bench.sweep.largest_batch import next_batch
from results.memory import Search, Trial
from results.quantities import size_bytes
from results.record import Record
from results.settings import Config, Straggler
from tests.conftest import CPU_ONLY, group
from tests.fakes import cell, write_report

MIB = 1 << 20
Peak = Callable[[int], int]

SHAPES: dict[str, Peak] = {
    "line": lambda batch: 5 * MIB + 70_001 * batch,
    "steps of an allocator": lambda batch: 5 * MIB + math.ceil(70_001 * batch / (2 * MIB)) * 2 * MIB,
    "square": lambda batch: 5 * MIB + 900 * batch * batch,
    "root": lambda batch: int(5 * MIB + 3 * MIB * math.sqrt(batch)),
    "flat, then a cliff": lambda batch: 5 * MIB if batch < 700 else 4096 * MIB,
}


def search(
    peak: Peak, limit: int, *, start: int = 32, granule: int = 1, most: int = 4096, tells: bool = True
) -> Search:
    """Runs a whole search; without ``tells``, a batch that does not fit only runs out of memory."""
    state = Search(limit, granule, most)
    while (batch := next_batch(state, start)) is not None:
        assert batch % granule == 0 and granule <= batch <= most
        assert batch not in [trial.batch for trial in state.tried]
        fits = peak(batch) <= limit
        trial = Trial(batch, peak(batch) if fits or tells else None, fits)
        state = Search(limit, granule, most, [*state.tried, trial])
    return state


def exhaustive(peak: Peak, limit: int, granule: int, most: int) -> int:
    return max((batch for batch in range(granule, most + 1, granule) if peak(batch) <= limit), default=0)


@pytest.mark.parametrize("tells", [True, False], ids=["peaks", "out of memory"])
@pytest.mark.parametrize("limit", [4 * MIB, 6 * MIB, 40 * MIB, 65 * MIB, 200 * MIB, 10_000 * MIB])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_answer_is_that_of_trying_all_batches(shape: str, limit: int, tells: bool) -> None:
    outcome = search(SHAPES[shape], limit, tells=tells)
    largest = exhaustive(SHAPES[shape], limit, 1, 4096)
    assert outcome.largest_fit == largest
    assert outcome.smallest_unfit == (None if largest == 4096 else largest + 1)
    assert len(outcome.tried) <= 2 * math.log2(4096)  # twice what bisection alone needs


@given(
    peaks=st.lists(st.integers(0, 50), min_size=40, max_size=40),
    limit=st.integers(0, 1000),
    start=st.integers(1, 80),
    granule=st.integers(1, 5),
    tells=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_memory_that_only_grows_is_searched_right(
    peaks: list[int], limit: int, start: int, granule: int, tells: bool
) -> None:
    def peak(batch: int) -> int:
        return sum(peaks[:batch])

    outcome = search(peak, limit, start=start, granule=granule, most=40, tells=tells)
    assert outcome.largest_fit == exhaustive(peak, limit, granule, 40)


def test_a_straight_line_takes_few_launches() -> None:
    assert len(search(SHAPES["line"], 65 * MIB).tried) <= 6


def test_the_line_is_never_the_answer() -> None:
    """Two points on a line, and a cliff where it says that all is well."""
    outcome = search(lambda batch: 1000 * batch if batch < 700 else 10**9, 900_000)
    assert (outcome.largest_fit, outcome.smallest_unfit) == (699, 700)


def test_an_interrupted_search_continues_where_it_stopped() -> None:
    whole = search(SHAPES["square"], 40 * MIB)
    for made in range(len(whole.tried)):
        part = Search(whole.limit_bytes, 1, whole.max_batch, whole.tried[:made])
        assert next_batch(part, 32) == whole.tried[made].batch


def test_a_batch_beyond_one_that_did_not_fit_is_no_answer() -> None:
    jittering = Search(100, 1, 50, [Trial(10, 90, True), Trial(12, 101, False), Trial(13, 100, True)])
    assert (jittering.largest_fit, jittering.smallest_unfit, jittering.peak_bytes) == (10, 12, 90)
    assert Search(100, 1, 50).largest_fit == 0


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2**31), ("1.5MB", 1_500_000), ("64 KiB", 65536), ("1B", 1), ("3kB", 3000)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["2", "GiB", "2gib", "-1GiB", "0MB", "0.1B", "2GiBs", "nan MB", "1kiB"])
def test_other_words_are_no_sizes(text: str) -> None:
    with pytest.raises(ValueError):
        size_bytes(text)


@pytest.mark.parametrize(
    ("cell_settings", "message"),
    [
        ({"memory_limit": "2GiB"}, r"^memory_limit=2GiB needs search=max_batch; else, valid: null$"),
        ({"search_most": 8}, r"^search_most=8 needs search=max_batch"),
        ({"search": "max_batch", "measure": {"memory": False}}, r"^search=max_batch needs measure.memory=true"),
        ({"search": "max_batch", "gpus": 2, "straggler": Straggler(rank=1)}, r"^search=max_batch has no straggler"),
    ],
    ids=str,
)
def test_a_search_that_makes_no_sense_is_rejected_by_its_name(
    make_config: Callable[..., Config], cell_settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(make_config(**cell_settings))


def test_a_cpu_needs_a_limit_and_a_gpu_has_one(make_config: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="search=max_batch needs memory_limit on device=cpu"):
        plan([make_config(search="max_batch")], CPU_ONLY, cores=2)
    gpu = dataclasses.replace(CPU_ONLY, cuda_devices=1, nccl="2.30.7")
    limits = []
    for limit in (None, "2GiB"):
        (cell,) = plan([make_config(search="max_batch", memory_limit=limit)], gpu, cores=2)
        limits.append(Jobs(cell, tmp_path).check().memory_limit_bytes)
    assert limits == [None, 2**31]


@pytest.mark.parametrize(
    ("cell_settings", "granule"),
    [
        ({}, 1),
        ({"accumulate": 4}, 4),
        ({"engine": group("engine", "pipeline") | {"microbatches": 6, "degree": 2}, "gpus": 4}, 3),
        ({"engine": group("engine", "pipeline") | {"microbatches": 4, "degree": 4}, "gpus": 4}, 1),
    ],
    ids=str,
)
def test_batches_divide_into_what_the_engine_cuts_them_into(
    make_config: Callable[..., Config], tmp_path: Path, cell_settings: dict[str, Any], granule: int
) -> None:
    (cell,) = plan([make_config(search="max_batch", memory_limit="1MiB", **cell_settings)], CPU_ONLY, cores=2)
    assert (cell.status, cell.search().multiple_of) == (None, granule)
    job = Jobs(cell, tmp_path).check()
    assert (job.parity_steps, job.collectives, job.memory) == (0, False, True)


def search_record(tried: list[Trial], gpus: int = 1, limit: int | None = 64 * MIB) -> Record:
    return cell(0, gpus, [], search=Search(limit, 1, 4096, tried))


def test_the_report_has_a_table_of_largest_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        search_record([Trial(32, 30 * MIB, True), Trial(70, 64 * MIB, True), Trial(71, 65 * MIB, False)]),
        search_record([Trial(4096, 30 * MIB, True)], gpus=2, limit=None),
        search_record([Trial(32, None, False), Trial(1, None, False)], gpus=4),
    ]
    table = frame(records)
    assert table["max_batch"].tolist() == [70, 4096, 0]
    assert table["max_batch_peak_bytes"].tolist()[:2] == [64 * MIB, 30 * MIB]
    paths = write_report(records, tmp_path, drawn=False)
    words = paths.markdown.read_text()
    assert "| 0 | 1 | 64.0 MiB | 70 | 64.0 | 71 | 3 |" in words
    assert "| 0 | 2 | the GPU's | 4096 | 30.0 | no larger one was tried | 1 |" in words
    assert "| 0 | 4 | 64.0 MiB | none | – | 1 | 2 |" in words
    assert "Largest batch that fits" in paths.html.read_text()
    print_summary(Content(records), paths)
    assert "largest batch" in capsys.readouterr().out
    assert "0,1,digits" in paths.csv.read_text() and ",3,67108864,70,67108864,71," in paths.csv.read_text()


def test_a_search_is_logged_as_metrics_and_survives_its_file(tmp_path: Path) -> None:
    record = search_record([Trial(70, 64 * MIB, True), Trial(71, None, False)])
    record.write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == record
    metrics = logged(record)
    assert (metrics["max_batch"], metrics["max_batch_peak_bytes"], metrics["unfit_batch"]) == (70, 64 * MIB, 71)
    assert "max_batch" not in logged(cell())


def logged(record: Record) -> dict[str, float]:
    table = frame([record])
    (row,) = [dict(entry.items()) for _, entry in table.iterrows()]
    return {metric.key: metric.value for metric in cell_metrics(record, row, metric_names(table))}
