"""Determinism: which engines give the same bits in two runs, at which stage, with and without deterministic=true.

    python -m benchmarks.determinism [--engines native torch] [--workloads mlp gpt] [--runs 2]

A run trains a few steps in fresh ranks of a fork server of its own, since what differs between two calls of Python
(hash seeds, address layout) may differ between runs too. Runs are equal if the global losses of all steps and the
SHA-256 of the final weights are; where training is outside parity, if every loss of every rank is. Equal runs are no
proof of determinism; two that differ disprove it.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bench import engines
from bench.groups import CONF, options
from bench.job import Job
from bench.launch.launcher import Launcher
from bench.launch.local import LocalLauncher
from bench.measure.machine.limits import usable_cores
from bench.plan.cell import Cell
from bench.plan.jobs import Jobs
from bench.plan.resolve import plan
from results.settings import Config, Measure

STEPS = 4
SIZES: dict[str, dict[str, Any]] = {
    "mlp": {"depth": 4, "width": 256, "batch_size": 12},
    "digits": {"batch_size": 12},
    "gpt": {"batch_size": 4},
    "resnet18": {"batch_size": 2},
    "dropout": {"batch_size": 12},
}
"""Small enough that a launch takes about a second; every batch can be cut in two."""
DROPOUT = {"path": "benchmarks.dropout:Dropout", "input": [64]}
WAYS = (False, True)
"""Values of ``deterministic``."""

Setting = tuple[str, int, str, str, int]
"""Engine, stage, workload, precision, ranks."""
Bits = tuple[list[list[float]], str]
"""Losses, and the digest of the weights."""


@dataclass
class Outcome:
    """What the runs of one setting came to."""

    reason: str = ""
    """Why it did not run; empty if it did."""
    runs: list[Bits] = field(default_factory=list)

    def equal(self) -> bool:
        return len(self.runs) > 1 and all(run == self.runs[0] for run in self.runs)


Outcomes = dict[tuple[Setting, bool], Outcome]


def group(name: str, choice: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((CONF / name / f"{choice}.yaml").read_text(encoding="utf-8"))
    settings: dict[str, Any] = document.get(name, document)
    return settings


def variants(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The engines, and the parameter server's three modes apart."""
    documents = {name: group("engine", name) for name in names}
    if "parameter_server" in documents:
        documents["parameter_server, async"] = documents["parameter_server"] | {"mode": "async"}
        documents["parameter_server, bounded"] = documents["parameter_server"] | {"mode": "bounded", "staleness": 2}
    return documents


def requests(
    chosen: dict[str, dict[str, Any]], workloads: Sequence[str], precisions: Sequence[str], ranks: Sequence[int]
) -> dict[Setting, Config]:
    """Every setting; one that an engine does not support is left for ``plan`` to say."""
    configs = {}
    for workload in workloads:
        changes = dict(SIZES[workload])
        batch_size = changes.pop("batch_size")
        settings = group("workload", "module") | DROPOUT if workload == "dropout" else group("workload", workload)
        for engine, document in chosen.items():
            untied = {"tie": False} if (engine, workload) == ("pipeline", "gpt") else {}  # its stages share no weight
            for stage in (0, 1, 2, 3):
                for precision in precisions:
                    for size in ranks:
                        configs[engine, stage, workload, precision, size] = Config(
                            engine=document,
                            workload=settings | changes | untied | {"name": workload},
                            stage=stage,
                            gpus=size,
                            precision=precision,
                            batch_size=batch_size,
                            steps=STEPS,
                            warmup=0,
                            threads=1,
                            measure=Measure(parity_steps=STEPS, memory=False, collectives=False, ceiling=False),
                        )
    return configs


def measure(settings: dict[Setting, Config], runs: int) -> Outcomes:
    """Runs every setting both ways, each run in a fork server of its own. Ctrl-C ends it with what is finished."""
    outcomes: Outcomes = {}
    preload = engines.preload(*{config.engine["package"] for config in settings.values()})
    with contextlib.ExitStack() as stack:
        places = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="determinism-"))) for _ in range(runs)]
        launchers = [stack.enter_context(LocalLauncher(preload)) for _ in range(runs)]
        try:
            for at, (setting, config) in enumerate(settings.items()):
                for way in WAYS:
                    outcomes[setting, way] = run_all(replace(config, deterministic=way), launchers, places)
                print(f"{at + 1}/{len(settings)} {setting}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print("interrupted: what is finished is shown", file=sys.stderr)
    return outcomes


def run_all(config: Config, launchers: Sequence[Launcher], places: Sequence[Path]) -> Outcome:
    """The runs of one cell, one a launcher, or why there are none."""
    outcome = Outcome()
    cell = plan([config], launchers[0].machine, usable_cores())[0]
    outcome.reason = cell.reason
    for launcher, place in zip(launchers, places, strict=True):
        if not outcome.reason:
            run_once(cell, launcher, place, outcome)
    return outcome


def run_once(cell: Cell, launcher: Launcher, scratch: Path, outcome: Outcome) -> None:
    """One more run of a cell."""
    outside = bool(cell.outside_parity())
    jobs = Jobs(cell, scratch)
    launches: list[Job[Any]] = [jobs.timing() if outside else jobs.check()]
    if not outside and not Path(jobs.check().reference).exists():
        launches.insert(0, jobs.reference())
    for job in launches:
        result = launcher.launch(job)
        if result.status != "ok":
            outcome.reason = f"{result.status}: {result.reason}"
            return
    if outside:
        outcome.runs.append(([rank.samples.losses for rank in result.ranks], ""))
    else:
        parity = result.ranks[0].parity
        outcome.runs.append(([parity.losses], parity.weights_digest))


def table(outcomes: Outcomes) -> str:
    """A row for each engine and stage: in how many settings all runs were equal, and where they were not."""
    lines = [
        "| engine | stage | equal by default | equal with `deterministic=true` | not equal |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for engine, stage in dict.fromkeys((setting[0], setting[1]) for setting, _ in outcomes):
        of_row = {key: outcome for key, outcome in outcomes.items() if key[0][:2] == (engine, stage)}
        counts = []
        for way in WAYS:
            ran = [outcome for key, outcome in of_row.items() if key[1] is way and not outcome.reason]
            counts.append(f"{sum(outcome.equal() for outcome in ran)} of {len(ran)}" if ran else "")
        if any(counts):
            unequal = [described(key) for key, outcome in of_row.items() if not outcome.reason and not outcome.equal()]
            lines.append(f"| {engine} | {stage} | {counts[0]} | {counts[1]} | {'; '.join(unequal)} |")
    return "\n".join(lines)


def described(key: tuple[Setting, bool]) -> str:
    (_, _, workload, precision, ranks), way = key
    return f"{workload} {precision} {ranks} ranks{' deterministic' if way else ''}"


def reasons(outcomes: Outcomes) -> list[str]:
    """What did not run, each reason once."""
    return list(
        dict.fromkeys(
            f"{setting[0]}, stage {setting[1]}: {o.reason}" for (setting, _), o in outcomes.items() if o.reason
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.determinism", description=__doc__.split("\n")[0])
    parser.add_argument("--engines", nargs="+", default=options("engine"))
    parser.add_argument("--workloads", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--precisions", nargs="+", default=["fp32", "amp_bf16"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[2, 3])
    parser.add_argument("--runs", type=int, default=2)
    arguments = parser.parse_args()
    settings = requests(variants(arguments.engines), arguments.workloads, arguments.precisions, arguments.ranks)
    outcomes = measure(settings, arguments.runs)
    print(table(outcomes))
    print(*("", *reasons(outcomes)), sep="\n")


if __name__ == "__main__":
    main()
