"""Collectives by size on real ranks: what is measured, over links whose rate and delay are known, and in a sweep."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.advice.alpha_beta import Fit, fits
from bench.launch.launcher import Launcher
from bench.measure.communication.sizes import KINDS
from bench.plan.cell import Cell
from bench.plan.jobs import Jobs
from bench.plan.resolve import plan
from bench.sweep.breakdown import Breakdown
from bench.sweep.resume import take_over
from bench.sweep.run import Sweep
from results.host_settings import Network
from results.launches import CollectiveTimes, Launch
from results.record import Record
from results.settings import Config
from results.store import RecordStore
from tests.conftest import MakeCell, group
from tests.fakes import write_report
from tests.integration.test_network import needs_delay, no_lab
from tests.undisturbed import undisturbed

pytestmark = pytest.mark.alone

Times = Callable[[Cell], list[CollectiveTimes]]


@pytest.fixture
def times(launcher: Launcher, scratch: Path) -> Times:
    """One launch of a cell."""

    def launch(cell: Cell) -> list[CollectiveTimes]:
        assert cell.status is None, cell.reason
        result = launcher.launch(Jobs(cell, scratch).collectives())
        assert result.status == "ok", f"{result.reason}\n{result.ends}"
        rank_times = [rank.collective_times for rank in result.ranks]
        assert all(rank == rank_times[0] for rank in rank_times)  # the slowest rank's, on all of them
        return rank_times[0]

    return launch


def options(**changes: Any) -> dict[str, Any]:
    return group("workload", "collectives") | changes


@pytest.mark.parametrize(("gpus", "dtype"), [(2, "float32"), (3, "bfloat16")])
def test_every_kind_is_timed_at_every_size(gpus: int, dtype: str, make_cell: MakeCell, times: Times) -> None:
    """Ranks check what they received; a wrong result would fail the launch."""
    sizes = [1000, 8 << 20]
    workload = options(sizes=sizes, dtype=dtype)
    cell = make_cell(engine="native", workload=workload, gpus=gpus, batch_size=64, steps=5)

    def by_size() -> list[tuple[CollectiveTimes, CollectiveTimes]]:
        timed = times(cell)
        assert [entry.kind for entry in timed] == [kind for kind in KINDS for _ in sizes]
        pairs = list(zip(timed[::2], timed[1::2], strict=True))
        for small, large in pairs:
            assert len(small.times_s) == len(large.times_s) == 5
            assert small.size_bytes >= 1000 and large.size_bytes >= 8 << 20
            assert min(small.times_s) > 0
        return pairs

    def claim(pairs: list[tuple[CollectiveTimes, CollectiveTimes]]) -> None:
        for small, large in pairs:
            assert min(small.times_s) < min(large.times_s)

    undisturbed(by_size, claim)


def fitted(times: Times, make_cell: MakeCell, delay: str | None) -> dict[str, Fit]:
    """The line of each kind over links of 100 Mbit/s, through each size's shortest time: others share the cores."""
    workload = options(kinds=["all_reduce", "broadcast"], sizes=[1 << 10, 1 << 18, 1 << 20])
    lab = Network("lab", "100mbit", delay)
    cell = make_cell(engine="native", workload=workload, gpus=2, batch_size=64, steps=5, network=lab)
    shortest = [CollectiveTimes(entry.kind, entry.size_bytes, [min(entry.times_s)]) for entry in times(cell)]
    launch = Launch(0, "", {}, [], collective_times=shortest)
    record = Record("id", "sweep", {}, {"world_size": 2}, {}, launches=[launch])
    return {fit.kind: fit for fit in fits(record)}


@pytest.mark.skipif(no_lab is not None, reason=no_lab or "")
@needs_delay
def test_the_line_has_the_rate_of_the_link_and_its_delay(make_cell: MakeCell, times: Times) -> None:
    """Not so for all_gather and all_to_all, which gloo does not send both ways at once (docs/results)."""

    def lines() -> list[dict[str, Fit]]:
        near_and_far = [fitted(times, make_cell, delay) for delay in (None, "10ms")]
        assert all(set(lines) == {"all_reduce", "broadcast"} for lines in near_and_far)
        return near_and_far

    def claim(near_and_far: list[dict[str, Fit]]) -> None:
        near, far = near_and_far
        for kind, fit in near.items():
            for line in (fit, far[kind]):
                assert 0.75 < line.bus / (1e8 / 8) < 1.02, kind  # headers take 4 %, and a busy machine more
            hops = 4 if kind == "all_reduce" else 2  # gloo asks for each message before it is sent
            assert 0.8 * hops * 0.01 < far[kind].alpha_s.value - fit.alpha_s.value < 1.5 * hops * 0.01, kind

    undisturbed(lines, claim)


def test_a_sweep_of_collectives_is_reported_and_resumed(
    tmp_path: Path, launcher: Launcher, make_config: Callable[..., Config]
) -> None:
    workload = options(kinds=["all_reduce", "broadcast"], sizes=[1024, 65536])

    def sweep(repeats: int) -> dict[str, Record]:
        settings = {
            "engine": "native",
            "workload": workload,
            "batch_size": 64,
            "gpus": 2,
            "steps": 3,
            "repeats": repeats,
        }
        cells = plan([make_config(**settings), make_config(**settings, stage=3)], launcher.machine, cores=2)
        running = Sweep(cells, RecordStore(tmp_path), launcher, {}, tmp_path, Breakdown())
        if repeats > 1:
            take_over(running.records)
        assert running.run() == 0
        return {path.stem: Record.read(path) for path in (tmp_path / "records").glob("*.json")}

    first, second = sweep(repeats=1), sweep(repeats=2)
    assert sorted(record.status for record in first.values()) == ["ok", "unsupported"]
    (timed,) = (name for name, record in first.items() if record.status == "ok")
    assert second[timed].launches[:1] == first[timed].launches and len(second[timed].launches) == 2
    assert second[timed].config["engine"] == {"name": "-"} and second[timed].model is None
    paths = write_report(list(second.values()), tmp_path)
    text = paths.markdown.read_text()
    assert "## Collectives by size" in text and "no stage=3: nothing is trained" in text
    with (tmp_path / "collectives.csv").open(newline="") as file:
        assert [row["size_bytes"] for row in csv.DictReader(file)] == ["1024", "65536"] * 2
