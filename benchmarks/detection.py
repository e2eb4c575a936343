"""How well the time gate works: its false alarms, and how often it finds slowdowns that are really there.

    python -m benchmarks.detection [--out FILE.json] [--rounds 32] [--servers 2] [--comparisons 200]

Detection: the same engine without and with a fault (``benchmarks.injected``), launched in shared rounds: a step that is
1, 3, 5 or 10 % longer, an added collective, an added buffer. Comparisons of 8, 16 and 32 rounds are drawn from the
rounds of one pair of servers, and judged by ``analysis.comparison.time_gate`` as ``bench.regress`` does.
False alarms: the same engine on both servers, in disjoint comparisons; after a few of them both servers are started
afresh, so that what sets two servers apart is part of what is measured.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from statistics import fmean, median, stdev, variance
from typing import Any

import yaml

from analysis.comparison import time_gate
from analysis.comparison.verdict import Pair, judge
from analysis.statistics import paired
from bench import engines
from bench.groups import CONF
from bench.launch.local import LocalLauncher, server_environment
from bench.measure.machine import environment, limits, source
from bench.plan.resolve import plan
from bench.sweep.breakdown import Breakdown
from bench.sweep.interleaved import Interleaved
from bench.sweep.run import Sweep
from results.record import Record
from results.settings import Config, Measure
from results.store import RecordStore

ROUNDS_AA = 8
"""Of a comparison without a difference: one more than the fewest that can raise an alarm."""
COMPARISONS_PER_SERVER = 8
SIZES = (8, 16, 32)
DRAWS = 500
MARGINS = (time_gate.MARGIN, 0.005)
SHARES = (0.01, 0.03, 0.05, 0.1)
MIB_ELEMENTS = 2**18
"""Elements of fp32 in 1 MiB."""
NONE = {"delay_s": 0.0, "collective_elements": 0, "buffer_elements": 0}
ADDED = {
    "all-reduce of 1 MiB": {"collective_elements": MIB_ELEMENTS},
    "copy of a 4 MiB buffer": {"buffer_elements": 4 * MIB_ELEMENTS},
}
CELLS: dict[str, dict[str, Any]] = {
    "calibrated, 1 rank": {
        "workload": {"layers": 1, "forward_s": 0.002, "backward_s": 0.003},
        "gpus": 1,
        "batch_size": 8,
        "steps": 10,
    },
    "digits, 2 ranks, stage 2": {"workload": {}, "gpus": 2, "stage": 2, "batch_size": 32, "steps": 15},
}
"""Cells whose launch takes less than a second: one that mostly sleeps, and one that computes, communicates, and takes
and frees its buckets in each step."""

Sides = dict[str, dict[str, Any]]
"""Options of the engine by side and cell; the first side has a server of its own."""
Measured = dict[str, dict[str, Record]]
"""Records of one pair of servers, by cell and side."""
Logs = dict[str, dict[str, list[list[float]]]]
"""By cell and side, for each pair of servers: logarithms of the ratios to the first side, a number a round."""


def config(cell: str, faults: dict[str, Any], rounds: int, *, checked: bool) -> Config:
    settings = dict(CELLS[cell])
    document = yaml.safe_load((CONF / "workload" / f"{cell.partition(',')[0]}.yaml").read_text())
    workload = document["workload"] | settings.pop("workload")
    engine = {"name": "injected", "package": "benchmarks.injected", "in_flight": None} | NONE | faults
    measure = Measure(parity_steps=0, memory=checked, collectives=checked, ceiling=False)
    return Config(engine=engine, workload=workload, measure=measure, warmup=1, threads=1, repeats=rounds, **settings)


def measure(sides: Sides, rounds: int, *, checked: bool, seed: int) -> Measured:
    """Interleaved rounds on a fresh pair of servers. ``checked``: memory and collectives too."""
    preload = engines.preload("benchmarks.injected")
    with tempfile.TemporaryDirectory() as folder, LocalLauncher(preload) as first, LocalLauncher(preload) as others:
        here = environment.collect(first.machine, server_environment(), source.collect(()))
        sweeps = {}
        for number, (name, faults) in enumerate(sides.items()):
            launcher = others if number else first
            place = Path(folder, str(number))
            configs = [config(cell, faults[cell], rounds, checked=checked) for cell in CELLS]
            cells = plan(configs, launcher.machine, limits.usable_cores())
            sweeps[name] = Sweep(cells, RecordStore(place), launcher, here, place, Breakdown())
        if not Interleaved(list(sweeps.values()), "detection", seed).run():
            raise KeyboardInterrupt
        return {
            cell: {name: sweep.records[sweep.cells[at]] for name, sweep in sweeps.items()}
            for at, cell in enumerate(CELLS)
        }


def same() -> dict[str, Any]:
    return dict.fromkeys(CELLS, NONE)


def faulty(steps_s: dict[str, float]) -> Sides:
    """All sides of the detection: without a fault, with each slowdown as seconds of the cell's own step, and added."""
    sides: Sides = {"A": same()}
    for share in SHARES:
        sides[f"{100 * share:g} % slower"] = {cell: {"delay_s": share * step_s} for cell, step_s in steps_s.items()}
    return sides | {fault: dict.fromkeys(CELLS, options) for fault, options in ADDED.items()}


def logs_of(runs: Sequence[Measured]) -> Logs:
    logs: Logs = {cell: {} for cell in CELLS}
    for run in runs:
        for cell, (first, *others) in ((cell, list(sides.items())) for cell, sides in run.items()):
            base = [time_gate.per_step_s(first[1], launch) for launch in first[1].launches]
            for name, record in others:
                own = [time_gate.per_step_s(record, launch) for launch in record.launches]
                logs[cell].setdefault(name, []).append(paired.logs_of_ratios(base, own).tolist())
    return logs


def verdict(logs: Sequence[float], margin: float) -> str:
    """The gate's, of one cell."""
    rounds = paired.least_rounds(time_gate.FALSE_ALARMS)
    return judge(paired.ratio_interval(logs, time_gate.FALSE_ALARMS), margin, least=margin, rounds=rounds)


def detections(logs: Logs, margin: float) -> list[dict[str, Any]]:
    """For each cell and fault, by rounds: the share of comparisons, drawn within a pair of servers, that are slower."""
    order = random.Random(0)
    rows = []
    for cell, sides in logs.items():
        for fault, servers in sides.items():
            row: dict[str, Any] = {"cell": cell, "fault": fault}
            every = [value for values in servers for value in values]
            row["ratio"] = paired.ratio_interval(every, time_gate.FALSE_ALARMS).value
            for size in SIZES:
                drawn = [order.choices(order.choice(servers), k=size) for _ in range(DRAWS)]
                row[str(size)] = sum(verdict(values, margin) == "slower" for values in drawn) / DRAWS
            rows.append(row)
    return rows


def false_alarms(logs: Logs, margin: float) -> list[dict[str, Any]]:
    """For each cell and number of rounds: disjoint comparisons of the same code, and how many are slower or faster.

    The same launches, cut into comparisons of each size.
    """
    rows = []
    for cell, sides in logs.items():
        for size in SIZES:
            blocks = [
                values[at : at + size] for values in sides["no fault"] for at in range(0, len(values) - size + 1, size)
            ]
            verdicts = [verdict(block, margin) for block in blocks]
            rows.append(
                {
                    "cell": cell,
                    "rounds": size,
                    "comparisons": len(blocks),
                    "slower": verdicts.count("slower"),
                    "faster": verdicts.count("faster"),
                }
            )
    return rows


def servers_apart(logs: Logs) -> list[dict[str, Any]]:
    """For each cell: how far pairs of servers lie apart, and how far their rounds alone would put them.

    Standard deviations of a pair's mean logarithm: over pairs, and as the spread of rounds within a pair predicts it.
    """
    rows = []
    for cell, sides in logs.items():
        servers = [values for values in sides["no fault"] if len(values) > 1]
        if len(servers) > 1:
            by_rounds = fmean(variance(values) / len(values) for values in servers) ** 0.5
            rows.append(
                {
                    "cell": cell,
                    "server_pairs": len(servers),
                    "apart": stdev(map(fmean, servers)),
                    "apart_by_rounds": by_rounds,
                }
            )
    return rows


def exact(run: Measured) -> list[dict[str, Any]]:
    """What memory and collectives alone say of each fault, from one launch a side."""
    rows = []
    for cell, sides in run.items():
        for fault, record in list(sides.items())[1:]:
            comparison = time_gate.judge_all([Pair(sides["A"], record)])[0]
            peak = comparison.peak
            rows.append(
                {"cell": cell, "fault": fault, "found": comparison.more, "peak": peak, "collectives": comparison.exact}
            )
    return rows


def markdown(document: dict[str, Any]) -> str:
    lines = []
    for margin in MARGINS:
        of_margin = document["by_margin"][f"{100 * margin:g}"]
        lines += [f"`--same {100 * margin:g}`: share of comparisons found slower", ""]
        lines += [f"| configuration | fault | step × | {' | '.join(f'{size} rounds' for size in SIZES)} |"]
        lines += ["| --- | --- " + "| ---: " * (1 + len(SIZES)) + "|"]
        for row in of_margin["detections"]:
            shares = " | ".join(f"{100 * row[str(size)]:.0f} %" for size in SIZES)
            lines.append(f"| {row['cell']} | {row['fault']} | {row['ratio']:.3f} | {shares} |")
        lines += ["", f"False alarms at `--same {100 * margin:g}`", ""]
        lines += ["| configuration | rounds | comparisons | found slower | found faster |"]
        lines += ["| --- | ---: | ---: | ---: | ---: |"]
        for row in of_margin["false_alarms"]:
            counts = " | ".join(str(row[name]) for name in ("rounds", "comparisons", "slower", "faster"))
            lines.append(f"| {row['cell']} | {counts} |")
        lines.append("")
    lines += ["| configuration | server pairs | apart | apart by their rounds alone |", "| --- | ---: | ---: | ---: |"]
    for row in document["servers_apart"]:
        apart, by_rounds = (f"{100 * row[name]:.2f} %" for name in ("apart", "apart_by_rounds"))
        lines.append(f"| {row['cell']} | {row['server_pairs']} | {apart} | {by_rounds} |")
    lines.append("")
    lines += ["| configuration | fault | found without timing | peak × | collectives |"]
    lines += ["| --- | --- | --- | ---: | --- |"]
    for row in document["exact"]:
        changes = "; ".join(row["collectives"]) or "same"
        lines.append(
            f"| {row['cell']} | {row['fault']} | {'yes' if row['found'] else 'no'} | {row['peak']:.3f} | {changes} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=32, help="rounds with faults, for each pair of servers")
    parser.add_argument("--servers", type=int, default=2, help="pairs of servers that run faults")
    parser.add_argument(
        "--comparisons",
        type=int,
        default=200,
        help=f"comparisons of {ROUNDS_AA} rounds without a fault, over all configurations",
    )
    parser.add_argument("--minutes", type=float, default=26, help="after which no further pair of servers is started")
    parser.add_argument("--out", type=Path, help="keep tables and ratios, as JSON")
    arguments = parser.parse_args()
    started = time.monotonic()
    trial = measure({"A": same()}, 5, checked=False, seed=0)
    steps_s = {
        cell: median(time_gate.per_step_s(sides["A"], launch) for launch in sides["A"].launches)
        for cell, sides in trial.items()
    }
    with_faults = [
        measure(faulty(steps_s), arguments.rounds, checked=not number, seed=number)
        for number in range(arguments.servers)
    ]
    without: list[Measured] = []
    each = ceil(arguments.comparisons / len(CELLS))
    while each > 0 and time.monotonic() - started < 60 * arguments.minutes:
        rounds = min(each, COMPARISONS_PER_SERVER) * ROUNDS_AA
        without.append(measure({"A": same(), "no fault": same()}, rounds, checked=False, seed=100 + len(without)))
        each -= COMPARISONS_PER_SERVER
    faults, none = logs_of(with_faults), logs_of(without)
    here = with_faults[0][next(iter(CELLS))]["A"].environment
    document = {
        "environment": {name: here[name] for name in ("time", "cpu_model", "cores", "gpus", "torch", "git")},
        "minutes": round((time.monotonic() - started) / 60, 1),
        "step_s": steps_s,
        "by_margin": {
            f"{100 * margin:g}": {"detections": detections(faults, margin), "false_alarms": false_alarms(none, margin)}
            for margin in MARGINS
        },
        "servers_apart": servers_apart(none),
        "exact": exact(with_faults[0]),
        "logs": {"faults": rounded(faults), "no_fault": rounded(none)},
    }
    print(markdown(document))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(document, indent=None, separators=(",", ":")) + "\n")


def rounded(logs: Logs) -> Logs:
    """To five digits: beyond the clock's own noise."""
    return {
        cell: {side: [[round(value, 5) for value in values] for values in servers] for side, servers in sides.items()}
        for cell, sides in logs.items()
    }


if __name__ == "__main__":
    main()
