"""The network lab: its links have the rate and delay that were asked for, and nothing of it stays behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
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
from bench.launch.local import LocalLauncher
from bench.messages import job_message
from bench.network.lab import Lab, NetworkError, obstacle
from bench.network.link import Link
from results.host_settings import Network
from tests.broken_sweep import ranks_below
from tests.conftest import MakeCell, RunCheck
from tests.undisturbed import undisturbed
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
WIDE = {"name": "linear", "factory": "workloads.linear:Linear", "inputs": 1000, "outputs": 1000, "bias": True}
HANG = {"name": "faulty", "factory": "tests.faults:Faulty", "how": "hang", "rank": 1}


def why_not(link: Link) -> str | None:
    if reason := obstacle(link):
        return reason
    try:
        Lab(link, 2).close()
    except NetworkError as error:
        return str(error)
    return None


no_lab = why_not(Link(1e9, 0.0, 2))
no_delay = no_lab or why_not(Link(1e9, 0.001, 2))
pytestmark = [pytest.mark.alone, pytest.mark.skipif(no_lab is not None, reason=no_lab or "")]
needs_delay = pytest.mark.skipif(no_delay is not None, reason=no_delay or "")


@pytest.fixture
def connected() -> Iterator[Callable[..., tuple[socket.socket, socket.socket]]]:
    """A TCP connection from host 1 to host 0 of a lab. A socket stays in the namespace that it was made in."""
    opened: list[Any] = []

    def connect(rate: float | None, delay_s: float = 0.0) -> tuple[socket.socket, socket.socket]:
        lab = Lab(Link(rate, delay_s, 2), 2)
        opened.append(lab)
        with lab.inside(0) as address:
            listener = socket.create_server((address, 0))
        with lab.inside(1):
            sender = socket.create_connection(listener.getsockname(), timeout=10)
        receiver, _ = listener.accept()
        opened.extend((listener, sender, receiver))
        for end in (sender, receiver):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sender, receiver

    yield connect
    for entry in reversed(opened):
        entry.close()


def received_bits_per_s(sender: socket.socket, receiver: socket.socket, size: int) -> float:
    """The best of three: a busy machine only ever makes a transfer slower."""
    return max(transfer_bits_per_s(sender, receiver, size) for _ in range(3))


def transfer_bits_per_s(sender: socket.socket, receiver: socket.socket, size: int) -> float:
    thread = threading.Thread(target=sender.sendall, args=(bytes(size),))
    started, left = time.perf_counter(), size
    thread.start()
    while left:
        left -= len(receiver.recv(min(left, 1 << 20)))
    thread.join()
    return size * 8 / (time.perf_counter() - started)


def round_trip_s(sender: socket.socket, receiver: socket.socket) -> float:
    times = []
    for _ in range(20):
        started = time.perf_counter()
        sender.sendall(b"?")
        receiver.recv(1)
        receiver.sendall(b"!")
        sender.recv(1)
        times.append(time.perf_counter() - started)
    return min(times)


@pytest.mark.parametrize("reverse", [False, True], ids=["sent", "received"])
def test_a_transfer_takes_as_long_as_the_rate_says(
    connected: Callable[..., tuple[socket.socket, socket.socket]], reverse: bool
) -> None:
    ends = connected(1e8)

    def claim(rate: float) -> None:
        assert rate == pytest.approx(1e8, rel=0.1)

    undisturbed(lambda: received_bits_per_s(*(ends[::-1] if reverse else ends), 8 << 20), claim)


@pytest.mark.parametrize("delay_s", [0.0, pytest.param(0.001, marks=needs_delay)])
def test_a_link_that_was_idle_is_no_faster(
    connected: Callable[..., tuple[socket.socket, socket.socket]], delay_s: float
) -> None:
    """As after backward has computed: 256 KiB take 21 ms at 100 Mbit/s, and no token bucket has saved up for them."""
    ends = connected(1e8, delay_s)

    def rate() -> float:
        rates = []
        for _ in range(4):
            time.sleep(0.1)
            rates.append(transfer_bits_per_s(*ends, 1 << 18))
        return max(rates)

    def claim(rate: float) -> None:
        assert 0.85e8 < rate < 1.1e8

    undisturbed(rate, claim)


@needs_delay
def test_a_delay_is_added_each_way_and_the_rate_stays(
    connected: Callable[..., tuple[socket.socket, socket.socket]],
) -> None:
    ends = connected(1e8, 0.005)

    def claim(delay_and_rate: tuple[float, float]) -> None:
        delay_s, rate = delay_and_rate
        assert 0.010 <= delay_s < 0.015
        assert rate == pytest.approx(1e8, rel=0.1)

    undisturbed(lambda: (round_trip_s(*ends), received_bits_per_s(*ends, 8 << 20)), claim)


def step_s(result: LaunchResult) -> float:
    assert result.status == "ok", f"{result.reason}\n{result.ends}"
    ranks = [rank.samples.forward_backward_s for rank in result.ranks]
    updates = [rank.samples.optimizer_s for rank in result.ranks]
    return min(
        max(a + b for a, b in zip(forward, update, strict=True))
        for forward, update in zip(zip(*ranks, strict=True), zip(*updates, strict=True), strict=True)
    )


def test_a_step_that_waits_for_gradients_is_four_times_as_long_at_a_quarter_of_the_rate(
    launcher: Launcher, make_cell: MakeCell, timing_job: Callable[..., Any]
) -> None:
    settings = {"engine": "native", "workload": WIDE, "gpus": 2, "batch_size": 2, "steps": 3}

    def claim(times: tuple[float, ...]) -> None:
        slow, fast = times
        assert 2.5 < slow / fast < 6, times

    cells = [make_cell(**settings, network=Network("lab", rate)) for rate in ("100mbit", "400mbit")]
    undisturbed(lambda: tuple(step_s(launcher.launch(timing_job(cell))) for cell in cells), claim)


@pytest.mark.parametrize("delay", [None, pytest.param("1ms", marks=needs_delay)])
@pytest.mark.parametrize(("engine", "stage"), [("native", 3), ("torch", 0), ("parameter_server", 0)])
def test_engines_compute_the_same_in_the_lab(
    run_check: RunCheck, make_cell: MakeCell, engine: str, stage: int, delay: str | None
) -> None:
    cell = make_cell(engine=engine, stage=stage, gpus=2, network=Network("lab", "1gbit", delay))
    assert run_check(cell)[0].parity.passed


def test_consecutive_ranks_share_a_host_and_each_server_has_its_own(make_cell: MakeCell) -> None:
    cell = make_cell(engine="parameter_server", gpus=4, network=Network("lab", "1gbit", hosts=2))
    resolved = cell.resolved()["network"]
    assert resolved == {"bits_per_s": 1e9, "delay_s": 0.0, "hosts": 3, "host_of_rank": [0, 0, 1, 1]}


def spaces_of(server: int, ranks: int) -> list[int]:
    """The namespaces of the ranks below a fork server, in order, once all run."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):
            children = ranks_below(psutil.Process(server))
            pids = sorted(child.pid for child in children if "bench.launch.forkserver" in child.cmdline())
            if len(pids) == ranks:
                return [os.stat(f"/proc/{pid}/ns/net").st_ino for pid in pids]
        time.sleep(0.05)
    raise AssertionError("the ranks did not start")


def spaces_in_use() -> set[int]:
    """Every network namespace that a process on this machine is in or holds."""
    spaces = set()
    for place in (*Path("/proc").glob("[0-9]*/ns/net"), *Path("/proc").glob("[0-9]*/fd/*")):
        try:
            target = os.readlink(place)
        except OSError:
            continue
        if target.startswith("net:["):
            spaces.add(int(target[5:-1]))
    return spaces


def test_nothing_is_left_after_a_launch_that_fails(make_cell: MakeCell, timing_job: Callable[..., Any]) -> None:
    links = sorted(os.listdir("/sys/class/net"))
    cell = make_cell(workload=HANG, gpus=4, network=Network("lab", hosts=2))
    results: list[LaunchResult] = []
    with LocalLauncher() as launcher:
        assert launcher.machine
        job = timing_job(cell, timeout_s=3.0)
        thread = threading.Thread(target=lambda: results.append(launcher.launch(job)))
        thread.start()
        spaces = spaces_of(launcher._process.pid, 4)
        thread.join()
        assert results[0].status == "timeout"
        assert spaces[0] == spaces[1] != spaces[2] == spaces[3]
        assert os.stat("/proc/self/ns/net").st_ino not in spaces
        assert not spaces_in_use() & set(spaces)
    assert sorted(os.listdir("/sys/class/net")) == links


@pytest.mark.parametrize("delay", [0.0, pytest.param(0.001, marks=needs_delay)])
def test_nothing_is_left_once_the_parent_is_killed(
    tmp_path: Path, make_cell: MakeCell, timing_job: Callable[..., Any], delay: float
) -> None:
    job = timing_job(make_cell(workload=HANG, gpus=2, network=Network("lab")), network=Link(1e9, delay, 2))
    (tmp_path / "job.json").write_text(json.dumps(job_message(job)))
    script = (
        "import json, sys\n"
        "from bench.messages import read_job\n"
        "from bench.launch.local import LocalLauncher\n"
        "launcher = LocalLauncher()\n"
        "launcher.machine\n"
        "print(launcher._process.pid, flush=True)\n"
        "launcher.launch(read_job(json.load(open(sys.argv[1]))))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "job.json")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    server = int(parent.stdout.readline())
    spaces = set(spaces_of(server, 2))
    below = psutil.Process(server).children(recursive=True)
    assert len(ranks_below(psutil.Process(server))) == (3 if delay else 2)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_until(lambda: not spaces_in_use() & spaces)
    assert wait_until(lambda: not any(process.is_running() for process in below))


def test_a_launch_where_namespaces_may_not_be_made_is_unsupported(
    make_cell: MakeCell, timing_job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = tmp_path / "ip"
    tool.write_text("#!/bin/sh\necho RTNETLINK answers: Operation not permitted >&2\nexit 1\n")
    tool.chmod(0o755)
    job = timing_job(make_cell(workload=HANG | {"how": "none"}, gpus=2, network=Network("lab")))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with LocalLauncher() as launcher:
        result = launcher.launch(job)
    assert result.status == "unsupported"
    assert result.reason == "network=lab: ip failed (RTNETLINK answers: Operation not permitted)"
