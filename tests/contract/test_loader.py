"""A DataLoader on real ranks: they train what one process trains, and a step waits as long as reading takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.launch.launcher import Launcher
from bench.plan.cell import Cell
from results.settings import Loader
from tests.conftest import MakeCell, RunCheck, group
from tests.contract.test_calibrated import layers
from tests.undisturbed import undisturbed
from tests.workload_cases import load

pytestmark = pytest.mark.alone


def test_ranks_with_workers_train_what_one_process_trains(
    tmp_path: Path, make_cell: MakeCell, run_check: RunCheck, launcher: Launcher, timing_job: Callable[..., Any]
) -> None:
    assert load("gpt").write_files(tmp_path)  # type: ignore[attr-defined]
    cell = make_cell(
        workload=group("workload", "gpt"),
        stage=2,
        gpus=2,
        batch_size=4,
        accumulate=2,
        steps=3,
        data="loader",
        data_dir=str(tmp_path),
        loader=Loader(workers=1),
    )
    assert run_check(cell)[0].parity.passed  # type: ignore[union-attr]
    result = launcher.launch(timing_job(cell))
    assert result.status == "ok", result.reason
    assert [len(rank.samples.data_s) for rank in result.ranks] == [3, 3]
    for rank in result.ranks:
        assert sum(rank.samples.step_times_s()) <= rank.samples.wall_s
    assert not [process for process in psutil.process_iter(["name"]) if process.info["name"].startswith("bench data")]


def test_a_step_waits_as_long_as_its_batch_takes_to_read(
    make_cell: MakeCell, launcher: Launcher, timing_job: Callable[..., Any]
) -> None:
    read_s = 0.02

    def waits_s(workers: int) -> list[float]:
        cell: Cell = make_cell(
            workload=layers(read_s=read_s / 2), batch_size=2, steps=8, data="loader", loader=Loader(workers=workers)
        )
        result = launcher.launch(timing_job(cell))
        assert result.status == "ok", result.reason
        waits: list[float] = result.ranks[0].samples.data_s
        return waits

    def claim(waits: list[list[float]]) -> None:
        without, with_one = waits
        assert read_s <= min(without) and sorted(without)[4] < 1.5 * read_s
        assert sorted(with_one)[4] < 0.2 * read_s  # a step of 80 ms hides it

    undisturbed(lambda: [waits_s(0), waits_s(1)], claim)
