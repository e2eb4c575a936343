"""The launcher: how a launch ends when a rank comes to grief, and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.job import LaunchResult
from bench.launch.launcher import Launcher
from bench.launch.local import LocalLauncher, launcher_for, warming
from tests.broken_sweep import ranks_below
from tests.conftest import MakeCell
from tests.faults import DAEMON
from tests.undisturbed import undisturbed
from tests.waiting import wait_until


def faulty(how: str, rank: int = 1) -> dict[str, Any]:
    return {"name": "faulty", "factory": "tests.faults:Faulty", "how": how, "rank": rank}


@pytest.fixture
def launch_with(launcher: Launcher, make_cell: MakeCell, timing_job: Callable[..., Any]) -> Callable[..., LaunchResult]:
    def run(how: str, gpus: int = 2, timeout_s: float = 60.0) -> LaunchResult:
        return launcher.launch(timing_job(make_cell(workload=faulty(how), gpus=gpus), timeout_s=timeout_s))

    return run


def soon(took_s: float) -> None:
    assert took_s < 30  # of a timeout of much more


def rank_processes(launcher: Launcher) -> list[psutil.Process]:
    return ranks_below(psutil.Process(launcher._process.pid))


def test_a_sound_workload_returns_every_ranks_samples(launch_with: Callable[..., LaunchResult]) -> None:
    result = launch_with("none", gpus=3)
    assert result.status == "ok"
    assert result.start_method == "fork"
    assert [len(rank.samples.forward_backward_s) for rank in result.ranks] == [2, 2, 2]


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        ("raise", "failed", "rank 1: RuntimeError: the model is broken"),
        ("exit", "failed", "rank 1: exited with code 3"),
        ("leave", "failed", "rank 1: exited with code 0 without a result"),
        ("kill", "failed", "rank 1: killed by signal 9 (SIGKILL)"),
        ("crash", "failed", "rank 1: killed by signal 11 (SIGSEGV)"),
        ("exhaust", "oom", "rank 1: RuntimeError:"),
        ("children", "failed", "rank 1: RuntimeError: left a child behind"),
        ("daemon", "failed", "rank 1: RuntimeError: left a daemon behind"),
        ("noise", "failed", "rank 1: RuntimeError: red\ufffd alert"),
        (
            "abort",
            "failed",
            "rank 1: killed by signal 6 (SIGABRT); its output says: Too many open files (EMFILE)",
        ),
    ],
)
def test_a_rank_that_fails_ends_the_launch_with_its_reason(
    launch_with: Callable[..., LaunchResult], launcher: Launcher, how: str, status: str, reason: str
) -> None:
    def took_s() -> float:
        started = time.monotonic()
        result = launch_with(how)
        ended = time.monotonic()
        assert (result.status, result.reason[: len(reason)]) == (status, reason)
        assert rank_processes(launcher) == []
        assert [end.rank for end in result.ends] == [0, 1]
        if how in ("exit", "raise", "crash", "noise"):
            assert result.ends[1].last_output
        assert not any(character in str(result) for character in "\x1b\x00"), "a terminal would obey them"
        return ended - started

    undisturbed(took_s, soon)


@pytest.mark.alone
def test_a_rank_that_hangs_times_out_and_says_where_it_stood(
    launch_with: Callable[..., LaunchResult], launcher: Launcher
) -> None:
    def timed_out() -> tuple[float, str]:
        started = time.monotonic()
        result = launch_with("hang", timeout_s=2.0)
        ended = time.monotonic()
        assert (result.status, result.reason) == ("timeout", "rank 0, 1 still running after timeout_s=2")
        assert not result.by_chance
        assert rank_processes(launcher) == []
        return ended - started, result.ends[1].last_output

    def claim(took_s_and_words: tuple[float, str]) -> None:
        """Two seconds are enough to get there, unless others take them."""
        took_s, words = took_s_and_words
        assert took_s < 2 + 5
        assert "hang_here" in words

    undisturbed(timed_out, claim)


@pytest.mark.alone
def test_a_stopped_rank_alone_is_named_for_a_timeout(
    launch_with: Callable[..., LaunchResult], launcher: Launcher
) -> None:
    result = launch_with("stop", timeout_s=3.0)
    expected = "rank 1 was stopped by a signal such as SIGSTOP (state T) after timeout_s=3"
    assert (result.status, result.reason) == ("timeout", expected)
    assert rank_processes(launcher) == []


def test_a_rank_that_closes_its_output_still_reports(launch_with: Callable[..., LaunchResult]) -> None:
    assert launch_with("close output").status == "ok"


def test_a_rank_that_closes_all_its_descriptors_is_named_with_what_it_did(
    launch_with: Callable[..., LaunchResult],
) -> None:
    """A library may abort at once. Then the end of the rank hides that its descriptors were closed: once in a while."""
    reasons = []
    for _ in range(5):
        result = launch_with("close all")
        assert result.status == "failed"
        assert result.reason.startswith("rank 1: "), result.reason
        reasons.append(result.reason)
        if "closed" in result.reason and "file descriptors" in result.reason:
            return
    pytest.fail(f"no reason names the descriptors: {reasons}")


@pytest.mark.parametrize("how", ["daemon", "nameless daemon"])
def test_a_process_that_left_its_ranks_session_ends_with_the_launch(
    launch_with: Callable[..., LaunchResult], how: str
) -> None:
    """``nameless``: its environment is not its rank's either."""

    def took_s() -> float:
        started = time.monotonic()
        launch_with(how)
        ended = time.monotonic()
        assert not any(DAEMON in (process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
        return ended - started

    undisturbed(took_s, soon)  # although it keeps the log open and writes into it


def test_the_launcher_works_after_a_failure(launch_with: Callable[..., LaunchResult]) -> None:
    assert launch_with("kill").status == "failed"
    assert launch_with("none").status == "ok"


def test_a_workload_that_ends_the_process_that_loads_it_fails_its_ranks_and_not_the_fork_server(
    launcher: Launcher, make_cell: MakeCell, timing_job: Callable[..., Any]
) -> None:
    server = launcher._process.pid
    result = launcher.launch(timing_job(make_cell(workload={"name": "faulty", "factory": "tests.faults:quits"})))
    assert (result.status, result.reason, launcher._process.pid) == ("failed", "rank 0: SystemExit: 3", server)


@pytest.fixture(scope="module")
def harmed() -> Iterator[LocalLauncher]:
    """A launcher whose fork server is limited or killed; the next launch finds a sound one."""
    with LocalLauncher() as launcher:
        assert launcher.machine
        yield launcher


def test_too_few_file_descriptors_are_named_with_their_limit(
    harmed: LocalLauncher, make_cell: MakeCell, timing_job: Callable[..., Any]
) -> None:
    job = timing_job(make_cell(workload="mlp", gpus=6))
    server = psutil.Process(harmed._process.pid)
    limits = server.rlimit(psutil.RLIMIT_NOFILE)
    few = server.num_fds() + 12
    server.rlimit(psutil.RLIMIT_NOFILE, (few, limits[1]))
    result = harmed.launch(job)
    expected = f"Too many open files (EMFILE); at most {few} open files per process (ulimit -n)"
    assert (result.status, result.by_chance, result.reason.endswith(expected)) == ("failed", False, True), result
    server.rlimit(psutil.RLIMIT_NOFILE, limits)
    assert harmed.launch(job).status == "ok"
    assert harmed._process.pid == server.pid


@pytest.fixture
def few_processes(harmed: LocalLauncher) -> Iterator[Path]:
    """A control group of its own, whose ``pids.max`` can be set; in the end the fork server leaves it."""
    group = Path(f"/sys/fs/cgroup/pids/bench-{os.getpid()}")
    try:
        group.mkdir()
        (group / "pids.max").write_text("max")
    except OSError as error:
        pytest.skip(f"no control group of processes can be made here: {error}")
    yield group
    (group.parent / "cgroup.procs").write_text(str(harmed._process.pid))
    group.rmdir()


@pytest.mark.parametrize("more", [pytest.param(2, marks=pytest.mark.exhaustive), 12])
def test_too_few_processes_are_named_with_their_limit(
    more: int, few_processes: Path, harmed: LocalLauncher, make_cell: MakeCell, timing_job: Callable[..., Any]
) -> None:
    """Two ranks of four can be started; or all, and then threads of some of them cannot, which abort or raise."""
    job = timing_job(make_cell(workload="mlp", gpus=4))
    (few_processes / "cgroup.procs").write_text(str(harmed._process.pid))
    most = int((few_processes / "pids.current").read_text()) + more
    (few_processes / "pids.max").write_text(str(most))
    result = harmed.launch(job)
    expected = f"at most {most} processes and threads in the control group (pids.max)"
    assert result.status == "failed" and expected in result.reason, result
    (few_processes / "pids.max").write_text("max")
    assert harmed.launch(job).status == "ok"


def test_a_fork_server_that_is_killed_costs_one_launch_and_leaves_no_rank(
    harmed: LocalLauncher, make_cell: MakeCell, timing_job: Callable[..., Any]
) -> None:
    job = timing_job(make_cell(workload=faulty("hang"), gpus=2))
    server, ranks = psutil.Process(harmed._process.pid), []

    def kill_when_ranks_run() -> None:
        while len(ranks) < 2:
            time.sleep(0.05)
            ranks[:] = ranks_below(server)
        server.kill()

    killer = threading.Thread(target=kill_when_ranks_run)
    killer.start()
    result = harmed.launch(job)
    killer.join()
    assert (result.status, "fork server" in result.reason, result.by_chance) == ("failed", True, True)
    assert wait_until(lambda: not any(rank.is_running() for rank in ranks))
    sound = timing_job(make_cell(workload=faulty("none"), gpus=2))
    assert harmed.launch(sound).status == "ok"


def test_a_fork_server_that_dies_while_idle_is_replaced(
    harmed: LocalLauncher, make_cell: MakeCell, timing_job: Callable[..., Any]
) -> None:
    harmed._process.kill()
    harmed._process.wait()
    assert harmed.launch(timing_job(make_cell(workload=faulty("none"), gpus=2))).status == "ok"


def test_a_server_that_warmed_up_in_vain_ends_with_the_request() -> None:
    before = psutil.Process().children()
    with warming(()):
        (server,) = set(psutil.Process().children()) - set(before)
    assert not server.is_running()
    with warming(()), launcher_for(()) as launcher:
        assert launcher.machine.torch
        assert len(set(psutil.Process().children()) - set(before)) == 1  # the one that warmed up
    assert psutil.Process().children() == before


def test_ranks_die_with_the_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys\n"
        "from bench.launch.local import LocalLauncher\n"
        "launcher = LocalLauncher()\n"
        "launcher.machine\n"
        "print(launcher._process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert parent.stdout
    server = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_until(lambda: not psutil.pid_exists(server))


def test_a_server_that_touched_cuda_or_has_threads_spawns_its_ranks(
    make_cell: MakeCell, timing_job: Callable[..., Any]
) -> None:
    with LocalLauncher(("tests.threaded",)) as launcher:
        result = launcher.launch(timing_job(make_cell(workload=faulty("none"), gpus=2)))
    assert result.status == "ok", result
    assert result.start_method == "spawn (the fork server has 2 threads)"
