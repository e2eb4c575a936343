"""Sweeps on two emulated hosts: what they compute, what they send, and how they end when a host does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import psutil
import pytest

from results.record import Record
from tests.cluster_lab import ClusterLab, obstacle
from tests.undisturbed import gone_within

ROOT = Path(__file__).resolve().parents[2]
why_not = obstacle()
pytestmark = [pytest.mark.alone, pytest.mark.skipif(why_not is not None, reason=why_not or "")]
SECRET = "0123456789abcdef0123456789abcdef"
QUICK = ["measure.ceiling=false", "tracking=none", "repeats=1", "steps=3"]
GONE_S = 10.0
"""Once a host is gone, every process of a launch is, unless the machine is busy."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[ClusterLab]:
    with ClusterLab(tmp_path / "lab").running(2) as made:
        yield made


class Sweep:
    """``cluster=env`` on n1 and n2: the same command on both."""

    def __init__(self, lab: ClusterLab, folder: Path, *words: str) -> None:
        self._lab, self.folder, self._logs = lab, folder, [folder.with_suffix(f".n{number}") for number in (1, 2)]
        command = [sys.executable, "-m", "bench", *words, *QUICK, "cluster=env", f"hydra.sweep.dir={folder}"]
        self.processes = []
        for index in (0, 1):
            variables = {"RANK": str(index), "WORLD_SIZE": "2", "MASTER_ADDR": lab.address("n1")}
            with self._logs[index].open("wb") as log:
                process = subprocess.Popen(
                    lab.at(f"n{index + 1}", *command),
                    env=os.environ | variables | {"BENCH_CLUSTER_SECRET": SECRET},
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            self.processes.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what is left: nsenter stops when its command is stopped, and then keeps the namespace alive."""
        for process in self.processes:
            process.kill()
            process.wait()

    def wait(self, seconds: float = 400.0) -> list[int]:
        return [process.wait(timeout=seconds) for process in self.processes]

    @property
    def output(self) -> str:
        return "\n".join(log.read_text(errors="replace") for log in self._logs)

    def records(self) -> list[Record]:
        return [Record.read(path) for path in sorted((self.folder / "records").glob("*.json"))]

    def has_no_ranks(self) -> bool:
        return not self._lab.ranks("n1") and not self._lab.ranks("n2")

    def until(self, holds: Callable[[], object], seconds: float = 300.0) -> None:
        """Waits while the sweep runs. Raises AssertionError if it ends before, or never gets there."""

        def is_so() -> object:
            assert self.processes[0].poll() is None, self.output
            return holds()

        until(is_so, seconds)


def until(holds: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)


def sent_per_rank_and_step(record: Record) -> float:
    (launch,) = record.launches
    sent = launch.condition_per_step("wire_sent_bytes")
    assert sent is not None
    return sent / len(launch.ranks)


def test_cells_on_two_hosts_keep_parity_and_send_what_the_formula_says(lab: ClusterLab, tmp_path: Path) -> None:
    sweep = Sweep(lab, tmp_path / "out", "-m", "engine=native,torch", "stage=0", "gpus=2", "cluster.ranks_per_host=1")
    assert sweep.wait() == [0, 0], sweep.output
    records = sweep.records()
    assert len(records) == 2
    for record in records:
        assert record.status == "ok" and record.parity and record.parity.passed
        assert [(host["name"], host["ranks"]) for host in record.resolved["hosts"]] == [("n1", 1), ("n2", 1)]
        assert {host["interface"] for host in record.resolved["hosts"]} == {"eth0"}
        assert record.environment["host_count"] == 2
        assert record.health and [host.name for host in record.health.hosts] == ["n1", "n2"]
        assert {(link.source, link.target) for link in record.health.links} == {(0, 1), (1, 0)}
        for host in record.health.hosts:  # emulated hosts share one clock
            assert host.flops_per_s and host.disk_free_bytes
            assert host.monotonic_offset_s is not None and host.clock_bound_s is not None
            assert abs(host.monotonic_offset_s) <= host.clock_bound_s
        (launch,) = record.launches
        assert len(launch.conditions_by_host) == 2 and set(launch.conditions) == {"wire_sent_bytes"}
        assert record.model
        size_bytes = 4 * record.model.parameter_count
        assert sent_per_rank_and_step(record) == pytest.approx(size_bytes, rel=0.02)  # 2f·S with f = 1/2
    whole = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET not in whole


ENDLESS = ["gpus=2", "cluster.ranks_per_host=1", "measure=time", "steps=100000", "timeout_s=600"]


def test_a_host_whose_link_is_cut_ends_the_launch_and_joins_again_and_all_end_with_the_coordinator(
    lab: ClusterLab, tmp_path: Path
) -> None:
    words = ["-m", "engine=torch", "stage=0,1", *ENDLESS, "cluster.health_check=false"]
    with Sweep(lab, tmp_path / "out", *words) as sweep:
        sweep.until(lambda: lab.ranks("n1") and lab.ranks("n2"))
        lab.cut("n2")
        print(f"cut link: all ranks are gone after {gone_within(GONE_S, sweep.has_no_ranks):.1f} s")
        lab.mend("n2")
        sweep.until(lambda: lab.ranks("n1") and lab.ranks("n2"))
        statuses = [(record.status, record.reason) for record in sweep.records() if record.status == "failed"]
        (server,) = psutil.Process(sweep.processes[0].pid).children()  # nsenter waits for the command
        server.kill()
        took_s = gone_within(GONE_S, lambda: not lab.processes("n1") and not lab.processes("n2"))
        print(f"killed coordinator: all processes are gone after {took_s:.1f} s")
    ((status, reason),) = statuses
    assert status == "failed" and reason.startswith("n2: host lost: "), reason


@pytest.mark.exhaustive
@pytest.mark.parametrize("fault", ["power", "killed server", "frozen server"])
def test_a_host_that_is_lost_ends_the_launch_by_its_name(lab: ClusterLab, tmp_path: Path, fault: str) -> None:
    words = ["engine=torch", *ENDLESS, "local_steps=50000", "cluster.health_check=false"]  # no rank waits for another
    with Sweep(lab, tmp_path / "out", *words) as sweep:
        sweep.until(lambda: lab.ranks("n1") and lab.ranks("n2"))
        (server,) = psutil.Process(sweep.processes[1].pid).children()  # nsenter waits for the command
        if fault == "power":
            lab.die("n2")
        else:
            server.send_signal(signal.SIGKILL if fault == "killed server" else signal.SIGSTOP)
        gone_within(GONE_S, lambda: not lab.ranks("n1") and (fault == "power" or not lab.ranks("n2")))
        assert sweep.processes[0].wait(timeout=120) == 1, sweep.output
        (record,) = sweep.records()
        assert record.status == "failed" and record.reason.startswith("n2: host lost: "), record.reason
        assert lab.processes("n1") == []
