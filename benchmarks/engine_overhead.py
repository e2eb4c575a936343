"""Engines against each other: the time that a step takes over its compute, at each stage.

    python -m benchmarks.engine_overhead [--rounds 6] [--engines native torch deepspeed]
                                         [--workloads mlp resnet18 gpt] [--ranks 2 4] [--steps 12]

Compute is the same forward, backward and unsharded update in one process without communication, with the threads of
one rank. Overhead is a step's time minus that. All launches of a round are shuffled, rounds are interleaved, and a
ratio is paired by round: its median, and the bootstrap interval with the level that so many rounds attain. Ctrl-C ends
it after the last whole round, which is shown as if it were the last requested.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from analysis.statistics.medians import Interval, ratio_interval
from bench import engines
from bench.groups import CONF, options
from bench.launch.launcher import Launcher
from bench.launch.local import LocalLauncher
from bench.measure.machine.limits import usable_cores
from bench.plan.cell import Cell
from bench.plan.jobs import Jobs
from bench.plan.resolve import plan
from results.launches import Launch
from results.settings import Config

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"depth": 6, "width": 512, "batch_size": 32},
    "resnet18": {"batch_size": 1},
    "gpt": {"batch_size": 8},
    "digits": {"batch_size": 32},
}
"""Sizes at which a step takes some tens of milliseconds on one core."""

Key = tuple[str, str, int, int]
"""Workload, engine, stage, ranks."""


def group(name: str, choice: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((CONF / name / f"{choice}.yaml").read_text(encoding="utf-8"))
    settings: dict[str, Any] = document.get(name, document)
    return settings


def requests(
    engines: list[str], workloads: list[str], ranks: list[int], stages: list[int], steps: int
) -> dict[Key, Config]:
    """Every cell that is compared, and the plain one of each workload."""
    plain = {"name": "plain", "package": "benchmarks.plain"}
    configs = {}
    for workload in workloads:
        changes = dict(SMALL[workload])
        common: dict[str, Any] = {"batch_size": changes.pop("batch_size"), "steps": steps, "threads": 1}
        common["workload"] = group("workload", workload) | changes
        configs[workload, "plain", 0, 1] = Config(engine=plain, **common)
        for engine in engines:
            for stage in stages:
                for size in ranks:
                    configs[workload, engine, stage, size] = Config(
                        engine=group("engine", engine), stage=stage, gpus=size, **common
                    )
    return configs


def measure(cells: dict[Key, Cell], launcher: Launcher, rounds: int) -> dict[Key, list[float]]:
    """A launch's median step time in seconds, one per round."""
    samples: dict[Key, list[float]] = {key: [] for key in cells}
    for number in range(rounds):
        try:
            taken = {key: step_s(cells[key], launcher) for key in random.Random(number).sample(list(cells), len(cells))}
        except KeyboardInterrupt:
            break
        for key, seconds in taken.items():
            samples[key].append(seconds)
        print(f"round {number + 1}/{rounds}", file=sys.stderr)
    return samples


def step_s(cell: Cell, launcher: Launcher) -> float:
    """The median step time of one launch."""
    result = launcher.launch(Jobs(cell, Path()).timing())
    if result.status != "ok":
        sys.exit(f"{cell.id}: {result.status}: {result.reason}")
    ranks = [rank.samples for rank in result.ranks]
    return median(Launch(0, "", {}, ranks).step_times_s())


def show(samples: dict[Key, list[float]], engines: list[str]) -> None:
    table = Table(title="Step and overhead in ms (median), and native's overhead and step over the best peer's")
    for column in ("workload", "ranks", "stage", "compute", "engine", "step", "overhead", "overhead ×", "step ×"):
        table.add_column(column, justify="left" if column in ("workload", "engine") else "right")
    cells = sorted({(workload, size, stage) for workload, engine, stage, size in samples if engine != "plain"})
    for workload, size, stage in cells:
        compute = samples[workload, "plain", 0, 1]
        steps = {
            engine: samples[workload, engine, stage, size]
            for engine in engines
            if (workload, engine, stage, size) in samples
        }
        over = {engine: [step - base for step, base in zip(steps[engine], compute, strict=True)] for engine in steps}
        peers = [engine for engine in steps if engine != "native"]
        best = min(peers, key=lambda engine: median(steps[engine]))
        for engine in ("native", *peers):
            ratios = ["", ""]
            if engine == "native":
                ratios = [
                    words(ratio_interval(over["native"], over[best])),
                    words(ratio_interval(steps["native"], steps[best])),
                ]
            first = engine == "native"
            table.add_row(
                workload if first else "",
                str(size) if first else "",
                str(stage) if first else "",
                f"{1e3 * median(compute):.1f}" if first else "",
                engine,
                f"{1e3 * median(steps[engine]):.1f}",
                f"{1e3 * median(over[engine]):.1f}",
                *ratios,
            )
    Console(width=120).print(table)


def words(ratio: Interval) -> str:
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_overhead", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--engines", nargs="+", default=["native", "torch", "deepspeed"], choices=options("engine"))
    parser.add_argument("--workloads", nargs="+", default=["mlp", "resnet18", "gpt"], choices=sorted(SMALL))
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 1, 2, 3], choices=range(4))
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    configs = requests(arguments.engines, arguments.workloads, arguments.ranks, arguments.stages, arguments.steps)
    packages = [config.engine["package"] for config in configs.values()]
    with LocalLauncher(engines.preload(*packages)) as launcher:
        cells = {key: plan([config], launcher.machine, usable_cores())[0] for key, config in configs.items()}
        runnable = {key: cell for key, cell in cells.items() if cell.status is None}
        samples = measure(runnable, launcher, arguments.rounds)
        if not all(samples.values()):
            sys.exit("not one whole round was measured")
        show(samples, arguments.engines)


if __name__ == "__main__":
    main()
