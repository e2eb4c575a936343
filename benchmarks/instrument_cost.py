"""The cost of measuring: steps with all instruments of a timed launch against the bare loop.

    python -m benchmarks.instrument_cost [--rounds 12] [--turns 100] [--ranks 1 2] [--steps 10ms 1ms] [--out FILE.json]

On: conditions read, ``bench.worker.loop.timed_steps`` with its marks, conditions read, the record written. Marks: the
same without conditions and record. Off: the same steps from the same barrier with one reading of the clock around them
all. All are blocks of five steps, and take turns in random order in one process: so short that the machine is the same
for the three of a turn, and with a ninth of a launch's steps to bear what is paid once a block. A launch's ratio is the
median over turns, and the interval is that of the median over fresh launches. What is paid once a launch, outside of
the clock, is shown next to it: two readings of conditions, and the record.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rich.console import Console
from rich.table import Table

import workloads
from analysis.statistics.medians import Interval, median_interval
from bench import engines
from bench.engines.base import Engine, RankContext
from bench.engines.native import adapter
from bench.engines.spec import EngineSpec
from bench.launch.local import server_environment
from bench.measure.machine import environment, limits
from bench.measure.machine.interference import Watch
from bench.measure.time.timing import CpuMarks
from bench.placement import Placement
from bench.worker.feed import Pool
from bench.worker.loop import timed_steps, train_step
from results.launches import Launch, RankSamples
from results.record import Record

CPU = torch.device("cpu")
BATCH_SIZE = 64
SIZES = {"10ms": {"depth": 4, "width": 512}, "1ms": {"depth": 3, "width": 128}}
"""Options of mlp. The table says what a step really took."""
STEPS = 5
"""Of a block."""

Blocks = dict[str, list[float]]
"""Seconds of a step in blocks ``on``, ``marks`` and ``off``, and of ``conditions`` and ``record``: one a turn."""


BLOCKS = ("on", "marks", "off")


def rank_main(rank: int, ranks: int, size: str, turns: int, seed: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", ranks)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    work = workloads.load(factory="workloads.mlp:MLP", seed=0, data_dir=None, options=dict(SIZES[size]))
    pool = [[work.batch(range(at * BATCH_SIZE, (at + 1) * BATCH_SIZE))] for at in range(rank, 8 * ranks, ranks)]
    engine = adapter.create()
    module = work.build()
    engine.setup(module, work.units(module), spec(ranks), RankContext(rank, ranks, CPU, store))
    watch = Watch(Placement(local_rank=rank, local_ranks=ranks), CPU)
    blocks: Blocks = {"on": [], "marks": [], "off": [], "conditions": [], "record": []}

    def on() -> None:
        begun = time.perf_counter()
        watch.begin()
        spent_s = time.perf_counter() - begun
        timed = timed_steps(engine, Pool(pool), STEPS, work.loss, CPU)
        begun = time.perf_counter()
        seen = watch.end()
        blocks["conditions"].append(spent_s + time.perf_counter() - begun)
        blocks["on"].append(timed.wall_s / STEPS)
        if rank == 0:
            samples = RankSamples(timed.forward_backward_s, timed.optimizer_s, [], timed.wall_s, timed.losses)
            blocks["record"].append(write_s(Path(folder), samples, seen.conditions))

    def marks() -> None:
        blocks["marks"].append(timed_steps(engine, Pool(pool), STEPS, work.loss, CPU).wall_s / STEPS)

    def off() -> None:
        blocks["off"].append(bare_s(engine, pool, STEPS, work.loss) / STEPS)

    timed_steps(engine, Pool(pool), STEPS, work.loss, CPU)
    order = random.Random(seed)  # the same on every rank
    for _ in range(turns):
        for block in order.sample([on, marks, off], 3):
            block()
    dist.barrier()
    Path(folder, f"{rank}.json").write_text(json.dumps(blocks))


def bare_s(engine: Engine, pool: list[Any], steps: int, loss_fn: Callable[..., Any]) -> float:
    """The loop of ``timed_steps`` without its instruments: two readings of the clock in all."""
    losses = []
    gc.collect()
    gc.disable()
    try:
        dist.barrier()
        begun = time.perf_counter()
        for step in range(steps):
            losses.append(train_step(engine, pool[step % len(pool)], loss_fn))
        return time.perf_counter() - begun
    finally:
        gc.enable()


def write_s(folder: Path, samples: RankSamples, seen: dict[str, float]) -> float:
    """Seconds to write a record of one launch."""
    record = Record("cell", "sweep", {}, {}, {}, launches=[Launch(0, "", {}, [samples], conditions=seen)])
    begun = time.perf_counter()
    record.write(folder / "record.json")
    return time.perf_counter() - begun


def spec(ranks: int) -> EngineSpec:
    return EngineSpec(stage=0, world_size=ranks, device="cpu", backend="gloo")


def launch(ranks: int, size: str, turns: int, seed: int) -> Blocks:
    """One launch of fresh processes; a block takes as long as on its slowest rank."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (ranks, size, turns, seed, folder)
        mp.start_processes(rank_main, arguments, nprocs=ranks, start_method="fork")  # type: ignore
        each: list[Blocks] = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(ranks)]
    blocks = {name: [max(times) for times in zip(*(rank[name] for rank in each), strict=True)] for name in BLOCKS}
    return blocks | {name: each[0][name] for name in ("conditions", "record")}


def mark_s(count: int = 20_000) -> float:
    """Seconds of one mark, in a loop of nothing else."""
    clock = CpuMarks()
    begun = time.perf_counter()
    for _ in range(count):
        clock.mark()
    return (time.perf_counter() - begun) / count


def ratio(launches: list[Blocks], block: str) -> Interval:
    """A step in blocks of that kind over one without instruments."""
    turns = [zip(blocks[block], blocks["off"], strict=True) for blocks in launches]
    return median_interval([median(step / bare for step, bare in launch) for launch in turns])


def row(size: str, ranks: int, launches: list[Blocks]) -> dict[str, Any]:
    everything = {name: [value for blocks in launches for value in blocks[name]] for name in launches[0]}
    return {
        "size": size,
        "ranks": ranks,
        "steps": STEPS,
        "step_s": median(everything["off"]),
        "on": dataclasses.asdict(ratio(launches, "on")),
        "marks": dataclasses.asdict(ratio(launches, "marks")),
        "conditions_s": median(everything["conditions"]),
        "record_s": median(everything["record"]),
        "launches": launches,
    }


def show(rows: list[dict[str, Any]], mark: float) -> None:
    level = Interval(**rows[0]["on"]).level_text()
    table = Table(
        title=f"Steps with instruments over steps without, {level}; a mark takes {1e9 * mark:.0f} ns, two a step"
    )
    for column in ("step (ms)", "ranks", "on/off", "marks/off", "conditions (ms)", "record (ms)"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in rows:
        table.add_row(
            f"{1e3 * entry['step_s']:.2f}",
            str(entry["ranks"]),
            words(Interval(**entry["on"])),
            words(Interval(**entry["marks"])),
            f"{1e3 * entry['conditions_s']:.1f}",
            f"{1e3 * entry['record_s']:.1f}",
        )
    Console(width=120).print(table)


def words(ratio: Interval) -> str:
    return f"{ratio.value:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instrument_cost", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    around = server_environment()
    if not around.items() <= os.environ.items():  # malloc reads it before Python runs
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.instrument_cost", *sys.argv[1:]], around)
    settings = [(size, ranks) for size in arguments.steps for ranks in arguments.ranks]
    for module in engines.preload("bench.engines.native"):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # as the fork server does: what was imported is out of the sight of the ranks' collections
    samples: dict[tuple[str, int], list[Blocks]] = {setting: [] for setting in settings}
    for number in range(arguments.rounds):
        for size, ranks in random.Random(number).sample(settings, len(settings)):
            samples[size, ranks].append(launch(ranks, size, arguments.turns, number))
        print(f"round {number + 1}/{arguments.rounds}", file=sys.stderr)
    rows = [row(size, ranks, samples[size, ranks]) for size, ranks in settings]
    mark = mark_s()
    show(rows, mark)
    if arguments.out:
        machine = {
            "cpu_model": environment.cpu_model(),
            "cores": limits.usable_cores(),
            "torch": torch.__version__,
        }
        document = {"time": environment.now(), "machine": machine, "mark_s": mark, "rows": rows}
        arguments.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # what torch's compiler imports reports leaks at exit
