"""CPU time of host servers while ranks train, on two emulated nodes.

    python -m benchmarks.host_server_cpu [--seconds 20]

Launches four ranks, two on each node, whose layers take a set time (``workload=calibrated``) and which communicate. The
CPU time of host servers, of their fork servers and of the coordinator is the kernel's, in nanoseconds. What a launch of
a few steps costs them is subtracted: its start and its end. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench import engines
from bench.job import TimingJob, WorkloadSpec
from bench.launch.cluster import secret as secrets
from bench.launch.cluster.commands import PROGRAM, command
from bench.launch.cluster.launcher import ClusterLauncher
from bench.launch.cluster.membership import Membership
from bench.launch.cluster.start import started
from bench.launch.local import PRELOAD
from benchmarks.launch_overhead import trivial_job
from results.host_settings import Cluster
from tests.cluster_lab import ClusterLab, obstacle

ROOT = Path(__file__).resolve().parents[1]
NODES = ("n1", "n2")
SPREAD = [2, 2]
LAYERS, FORWARD_S, BACKWARD_S = 4, 0.005, 0.01
STEP_S = LAYERS * (FORWARD_S + BACKWARD_S)
SHORT_STEPS = 5


def job(steps: int) -> TimingJob:
    options = {"layers": LAYERS, "forward_s": FORWARD_S, "backward_s": BACKWARD_S}
    workload = WorkloadSpec("workloads.calibrated:Calibrated", 0, None, options)
    return dataclasses.replace(trivial_job(sum(SPREAD)), workload=workload, steps=steps, ranks_by_host=SPREAD)


def cpu_s(pid: int) -> float:
    """CPU time of a process: of all its threads."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def servers() -> dict[int, str]:
    """The processes of the suite that run while ranks train, this one included; of all emulated nodes."""
    below = psutil.Process().children(recursive=True)
    hosts = [one for one in below if PROGRAM in one.cmdline() and one.name() != "nsenter"]
    forks = [child for host in hosts for child in host.children()]
    names = dict.fromkeys((one.pid for one in hosts), "host server") | {one.pid: "fork server" for one in forks}
    return {os.getpid(): "coordinator"} | names


def launched(launcher: ClusterLauncher, steps: int) -> tuple[float, dict[int, float]]:
    """Seconds of a launch, and the CPU seconds of each process in it."""
    processes = servers()
    before, began = {pid: cpu_s(pid) for pid in processes}, time.perf_counter()
    result = launcher.launch(job(steps))
    assert result.status == "ok", result
    return time.perf_counter() - began, {pid: cpu_s(pid) - earlier for pid, earlier in before.items()}


@contextlib.contextmanager
def warm_hosts(lab: ClusterLab) -> Iterator[ClusterLauncher]:
    """Host servers on the nodes; this process is on ctl's network and sees the processes of all."""
    secret, modules = secrets.new(), [*PRELOAD, *engines.preload("bench.engines.torch")]
    address = lab.address("ctl")
    members = Membership(address, 0, secret, modules, len(NODES))
    commands = {
        index: lab.at(name, *command(address, members.port, str(index), Cluster(kind="ssh")))
        for index, name in enumerate(NODES)
    }
    with started(members, secret, commands) as launcher:
        assert len(launcher.hosts) == len(NODES)
        launcher.status = 0
        yield launcher


def measure(place: Path, seconds: float) -> None:
    with warm_hosts(ClusterLab(place)) as launcher:
        launched(launcher, SHORT_STEPS)  # loads the workload
        short_s, short = launched(launcher, SHORT_STEPS)
        long_s, long = launched(launcher, SHORT_STEPS + round(seconds / STEP_S))
        span_s = long_s - short_s
        print(f"{sum(SPREAD)} ranks trained for {span_s:.1f} s on {len(NODES)} nodes; in that time, on a CPU:")
        for pid, name in servers().items():
            used_s = long[pid] - short[pid]
            share = f"{1e3 * used_s:.1f} ms, {100 * used_s / span_s:.3f} %"
            print(f"  {name:12} {share}; the short launch: {1e3 * short[pid]:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host_server_cpu", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20, help="how long ranks train")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        measure(arguments.inside, arguments.seconds)
        return
    if why_not := obstacle():
        sys.exit(why_not)
    with tempfile.TemporaryDirectory() as place, ClusterLab(Path(place)).running(len(NODES)) as lab:
        network = ["nsenter", "--target", str(lab.pid("ctl")), "--net", sys.executable, "-m"]
        words = [*network, "benchmarks.host_server_cpu", *sys.argv[1:], f"--inside={place}"]
        sys.exit(subprocess.run(words, cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
