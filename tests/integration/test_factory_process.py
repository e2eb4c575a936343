"""A person's factory runs in a process of its own: whatever it changes is named, and no other cell's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from bench.job import LaunchResult
from bench.launch.launcher import Launcher
from tests.broken_sweep import Broken, ranks_below
from tests.conftest import MakeCell
from tests.undisturbed import undisturbed


@pytest.fixture
def train(launcher: Launcher, make_cell: MakeCell, timing_job: Callable[..., Any]) -> Callable[..., LaunchResult]:
    def run(factory: str, gpus: int = 2, timeout_s: float = 60.0) -> LaunchResult:
        workload = {"name": factory, "factory": f"tests.faults:{factory}"}
        return launcher.launch(timing_job(make_cell(workload=workload, gpus=gpus), timeout_s=timeout_s))

    return run


@pytest.mark.parametrize(
    ("factory", "change"),
    [
        ("float64", "changed torch's default dtype from torch.float32 to torch.float64 (put back)"),
        ("LateFloat64", "changed torch's default dtype from torch.float32 to torch.float64 (put back)"),
        ("no_gradients", "changed torch's gradients from True to False (put back)"),
        ("meta_device", "changed torch's default device from cpu to meta (put back)"),
        ("many_threads", "changed torch's number of threads from 1 to 7 (put back)"),
        ("ignored_children", "changed signal handlers from SIGCHLD=SIG_DFL to SIG_IGN (put back)"),
        ("elsewhere", "changed the working folder from"),
        ("patched_linear", "replaced torch.nn.functional.linear"),
        ("running_thread", "left a thread running: left behind"),
    ],
)
def test_what_a_factory_changes_is_named_and_reaches_no_other_cell(
    train: Callable[..., LaunchResult], launcher: Launcher, factory: str, change: str
) -> None:
    before, server = train("harmless"), launcher._process.pid
    result = train(factory)
    assert result.status == "ok", result
    assert any(change in line for rank in result.ranks for line in rank.changes), result.ranks[0].changes
    assert losses(result) == losses(before), "trained as its record says: in fp32, with gradients, one thread"
    after = train("harmless")
    assert (after.status, after.start_method, losses(after)) == ("ok", "fork", losses(before))
    assert not any(rank.changes for rank in after.ranks)
    assert launcher._process.pid == server


def losses(result: LaunchResult) -> list[list[float]]:
    return [rank.samples.losses for rank in result.ranks]


def test_where_a_factory_leaves_a_thread_each_rank_loads_the_workload_and_none_is_spawned(
    train: Callable[..., LaunchResult],
) -> None:
    reason = "fork; each rank loads the workload (the process that loaded the workload has 2 threads)"
    assert train("running_thread").start_method == reason


def test_a_factory_that_ends_its_process_fails_its_launch_and_is_named(
    train: Callable[..., LaunchResult], launcher: Launcher
) -> None:
    train("harmless")
    server = launcher._process.pid
    result = train("leaves")
    expected = "the factory tests.faults:leaves ended the process that ran it, with exit code 0"
    assert (result.status, result.reason) == ("failed", expected)
    assert train("harmless").status == "ok" and launcher._process.pid == server


@pytest.mark.alone
def test_a_factory_that_does_not_return_times_out_and_is_named(
    train: Callable[..., LaunchResult], launcher: Launcher
) -> None:
    train("harmless")
    server = launcher._process.pid

    def took_s() -> float:
        started = time.monotonic()
        result = train("endless", timeout_s=2.0)
        ended = time.monotonic()
        expected = "the factory tests.faults:endless still running after timeout_s=2 (File "
        assert (result.status, result.reason[: len(expected)]) == ("timeout", expected)
        assert "in endless" in result.reason
        return ended - started

    def claim(took_s: float) -> None:
        assert took_s < 2 + 5

    undisturbed(took_s, claim)
    assert train("harmless").status == "ok" and launcher._process.pid == server


def test_the_data_of_a_workload_are_loaded_once_and_ranks_are_the_servers_children(
    train: Callable[..., LaunchResult], launcher: Launcher
) -> None:
    def holders() -> set[int]:
        server = psutil.Process(launcher._process.pid)
        return {child.pid for child in server.children(recursive=True)} - {rank.pid for rank in ranks_below(server)}

    train("harmless")
    first = holders()
    train("harmless", gpus=3)
    assert holders() == first and first
    train("float64")
    train("patched_linear")
    assert len(holders()) == 2, "workloads that were used last are kept"


def test_a_killed_holder_of_a_workload_is_replaced(train: Callable[..., LaunchResult], launcher: Launcher) -> None:
    train("harmless")
    for holder in psutil.Process(launcher._process.pid).children():
        holder.kill()
        while holder.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
    assert train("harmless").status == "ok"


def test_a_sweep_says_what_a_factory_changed_and_flags_the_cell(sweep: Broken) -> None:
    code, output = sweep.run(
        "workload.factory=tests.faults:float64,tests.faults:harmless", "~workload.how", "~workload.rank"
    )
    assert code == 0, output
    assert "changed torch's default dtype from torch.float32 to torch.float64 (put back)" in output
    flagged = {
        json.dumps(record.config["workload"]["factory"]): record.verdict_reasons.get("global_state", "")
        for record in sweep.records().values()
    }
    assert len(flagged) == 2 and sorted(map(bool, flagged.values())) == [False, True], flagged
