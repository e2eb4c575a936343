"""Launch overhead on several hosts: warm host servers against srun and torchrun, on emulated nodes with Slurm.

    python -m benchmarks.cluster_launch [--rounds 12] [--slow-rounds 5] [--nodes 8]

Each way launches 4 ranks on 2 nodes, two on each, that wrap a small model in DDP, train one step and leave. Then host
servers launch 8 ranks on 2, 4 and 8 nodes. Ways are interleaved round by round; a ratio is paired by round. The import
of torch by host servers (once per sweep) is printed apart. Needs root, and Debian's slurm-wlm and munge.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from analysis.statistics.medians import median_interval, ratio_interval
from bench import engines
from bench.launch.cluster.start import open_launcher
from bench.launch.launcher import Launcher
from benchmarks.launch_overhead import trivial_job
from results.host_settings import Cluster
from tests.cluster_lab import INTERFACE
from tests.slurm_lab import SlurmLab, obstacle

ROOT = Path(__file__).resolve().parents[1]
WARM = "host servers"
RANKS, HOSTS = 4, 2
GROWTH_RANKS = 8
FIRST_PORT = 29700
Samples = dict[str, list[float]]


def timed_warm(launcher: Launcher, ranks_by_host: list[int]) -> float:
    job = dataclasses.replace(trivial_job(sum(ranks_by_host)), ranks_by_host=ranks_by_host)
    started = time.perf_counter()
    result = launcher.launch(job)
    assert result.status == "ok", result
    return time.perf_counter() - started


def timed_command(words: list[str], port: int, first: str) -> float:
    variables = {
        "TRIVIAL_ADDRESS": first,
        "TRIVIAL_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": INTERFACE,
    }
    started = time.perf_counter()
    done = subprocess.run(words, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - started


def srun(names: list[str], tasks_per_node: int) -> list[str]:
    nodes = ["srun", "--overlap", "--cpu-bind=none", f"--nodes={len(names)}", f"--nodelist={','.join(names)}"]
    return [*nodes, f"--ntasks={len(names) * tasks_per_node}", f"--ntasks-per-node={tasks_per_node}", sys.executable]


def torchrun(names: list[str], port: int) -> list[str]:
    each = RANKS // len(names)
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={names[0]}:{port}", f"--rdzv-id={port}"]
    run = ["-m", "torch.distributed.run", f"--nnodes={len(names)}", f"--nproc-per-node={each}", *meeting]
    return [*srun(names, 1), *run, "-m", "benchmarks.trivial_rank"]


def measure_ways(launcher: Launcher, names: list[str], rounds: int) -> Samples:
    """Seconds of each way, one entry per round."""
    spread = [RANKS // HOSTS] * HOSTS
    ways: dict[str, Callable[[int], float]] = {
        WARM: lambda port: timed_warm(launcher, spread),
        "srun python": lambda port: timed_command(
            [*srun(names, RANKS // HOSTS), "-m", "benchmarks.trivial_rank"], port, names[0]
        ),
        "torchrun": lambda port: timed_command(torchrun(names, port), port + 1, names[0]),
    }
    return interleaved(ways, rounds)


def measure_growth(launcher: Launcher, nodes: int, rounds: int) -> Samples:
    """Seconds of a launch of the same ranks on more and more nodes, one entry per round."""
    counts = [count for count in (2, 4, 8) if count <= nodes]

    def on(count: int) -> Callable[[int], float]:
        return lambda port: timed_warm(launcher, [GROWTH_RANKS // count] * count)

    return interleaved({f"{count} nodes": on(count) for count in counts}, rounds)


def interleaved(ways: dict[str, Callable[[int], float]], rounds: int) -> Samples:
    samples: Samples = {way: [] for way in ways}
    for number in range(rounds):
        for place, way in enumerate(random.Random(number).sample(list(ways), len(ways))):
            samples[way].append(ways[way](FIRST_PORT + 10 * (number * len(ways) + place)))
    return samples


def show(samples: Samples, base: str, title: str) -> None:
    table = Table(title=title)
    for column in ("launch", "seconds", f"ratio to {base} [interval]"):
        table.add_column(column, justify="left" if column == "launch" else "right")
    level = median_interval(samples[base]).level_text()
    for way, seconds in samples.items():
        ratio = ratio_interval(seconds, samples[base])
        words = "" if way == base else f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
        table.add_row(way, f"{median_interval(seconds).value:.3f}", words)
    Console(width=100).print(table)
    print(f"medians; paired by round, level {level}")


def inside(nodes: int, rounds: int, slow_rounds: int) -> None:
    """Measures within an allocation of Slurm."""
    started = time.perf_counter()
    launcher = open_launcher(Cluster(kind="slurm"), engines.preload("bench.engines.torch"))
    try:
        names = [host.name for host in launcher.hosts]
        print(f"{len(names)} host servers warm after {time.perf_counter() - started:.1f} s (once per sweep)")
        timed_warm(launcher, [1] * nodes)  # loads the workload once on each host, as a sweep does
        show(measure_growth(launcher, nodes, rounds), "2 nodes", f"{GROWTH_RANKS} ranks on 2 to {nodes} nodes")
        ways = measure_ways(launcher, names[:HOSTS], slow_rounds)
        show(ways, WARM, f"{RANKS} ranks on {HOSTS} nodes")
        launcher.status = 0
    finally:
        launcher.close()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster_launch", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=12, help="of launches by host servers on 2 to 8 nodes")
    parser.add_argument("--slow-rounds", type=int, default=5, help="of host servers, srun and torchrun")
    parser.add_argument("--nodes", type=int, default=8, choices=(2, 4, 8))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        inside(arguments.nodes, arguments.rounds, arguments.slow_rounds)
        return
    if why_not := obstacle():
        sys.exit(why_not)
    with tempfile.TemporaryDirectory() as place, SlurmLab(Path(place)).running(arguments.nodes) as lab:
        words = ["salloc", "--quiet", f"--nodes={arguments.nodes}", "--exclusive", sys.executable, "-m"]
        words += ["benchmarks.cluster_launch", *sys.argv[1:], "--inside"]
        sys.exit(subprocess.run(lab.login(*words), cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
