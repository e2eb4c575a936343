"""Launch overhead: the fork server against torch.multiprocessing's spawn and against torchrun.

    python -m benchmarks.launch_overhead [--rounds 3] [--ranks 1 2 4 8]

Each way launches N ranks that wrap a small model in DDP, train one step and leave. Ways are interleaved
round by round; a ratio is the median over rounds of paired ratios, with their range. The fork
server's own warm-up (once per sweep) is printed apart, as is the spawning parent's import of torch.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import engines
from bench.engines.spec import EngineSpec
from bench.job import TimingJob, WorkloadSpec
from bench.launch.launcher import Launcher
from bench.launch.local import LocalLauncher

SPAWN = """
import sys, time
import torch.multiprocessing as mp
from benchmarks.trivial_rank import train
if __name__ == "__main__":
    for line in sys.stdin:
        ranks, port = map(int, line.split())
        started = time.perf_counter()
        context = mp.spawn(train, args=(ranks, port), nprocs=ranks, join=False)
        for process in context.processes:
            process.join()
        codes = {process.exitcode for process in context.processes}
        print(time.perf_counter() - started if codes == {0} else "failed", flush=True)
"""


def trivial_job(ranks: int) -> TimingJob:
    spec = EngineSpec(
        stage=0,
        world_size=ranks,
        device="cpu",
        backend="gloo",
        optimizer="sgd",
        lr=0.1,
        options={
            "gradient_as_bucket_view": True,
            "static_graph": False,
            "find_unused_parameters": False,
            "powersgd_rank": 1,
        },
    )
    return TimingJob(
        engine="bench.engines.torch",
        spec=spec,
        workload=WorkloadSpec("workloads.mlp:MLP", 0, None, {"depth": 1, "width": 64}),
        world_size=ranks,
        rank_batch=8,
        steps=1,
        warmup=0,
        batch_pool=1,
        threads=1,
        deterministic=False,
        timeout_s=120.0,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def timed_fork(launcher: Launcher, ranks: int) -> float:
    started = time.perf_counter()
    result = launcher.launch(trivial_job(ranks))
    assert result.status == "ok", result
    return time.perf_counter() - started


def timed_spawn(parent: subprocess.Popen[str], ranks: int) -> float:
    assert parent.stdin and parent.stdout
    parent.stdin.write(f"{ranks} {free_port()}\n")
    parent.stdin.flush()
    return float(parent.stdout.readline())


def timed_torchrun(ranks: int) -> float:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port"]
    environment = os.environ | {"TRIVIAL_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    subprocess.run(
        [*command, str(free_port()), "-m", "benchmarks.trivial_rank"],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def measure(rounds: int, world_sizes: list[int]) -> dict[tuple[str, int], list[float]]:
    """Seconds by way and world size, one entry per round."""
    samples: dict[tuple[str, int], list[float]] = {}
    root = Path(__file__).resolve().parents[1]
    with (
        LocalLauncher(engines.preload("bench.engines.torch")) as launcher,
        subprocess.Popen(
            [sys.executable, "-c", SPAWN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
        ) as spawning,
    ):
        print(f"fork server warm after {launcher.machine.warm_up_s:.1f} s (once per sweep)")
        ways: dict[str, Callable[[int], float]] = {
            "fork server": lambda ranks: timed_fork(launcher, ranks),
            "spawn": lambda ranks: timed_spawn(spawning, ranks),
            "torchrun": timed_torchrun,
        }
        timed_fork(launcher, 1)  # loads the workload once, as a sweep does
        for number in range(rounds):
            todo = [(way, ranks) for way in ways for ranks in world_sizes]
            random.Random(number).shuffle(todo)
            for way, ranks in todo:
                samples.setdefault((way, ranks), []).append(ways[way](ranks))
        assert spawning.stdin
        spawning.stdin.close()
    return samples


def show(samples: dict[tuple[str, int], list[float]]) -> None:
    table = Table(title="Seconds to the last rank's end (median); ratio to the fork server [range]")
    table.add_column("ranks", justify="right")
    table.add_column("fork server", justify="right")
    for way in ("spawn", "torchrun"):
        table.add_column(way, justify="right")
        table.add_column("ratio", justify="right")
    for ranks in sorted({ranks for _, ranks in samples}):
        ours = samples["fork server", ranks]
        row = [str(ranks), f"{statistics.median(ours):.3f}"]
        for way in ("spawn", "torchrun"):
            ratios = [theirs / mine for theirs, mine in zip(samples[way, ranks], ours, strict=True)]
            row.append(f"{statistics.median(samples[way, ranks]):.2f}")
            row.append(f"{statistics.median(ratios):.0f} [{min(ratios):.0f}, {max(ratios):.0f}]")
        table.add_row(*row)
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.launch_overhead", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
    arguments = parser.parse_args()
    show(measure(arguments.rounds, arguments.ranks))


if __name__ == "__main__":
    main()
