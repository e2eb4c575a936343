"""``dry_run=true``: the plan of a sweep, its estimated time, and the memory that each configuration will need.

A single process trains each model for a few steps, as the reference of parity does. No rank is measured.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any, NoReturn

from analysis.metrics.memory import memory
from analysis.text import units
from bench import engines
from bench.checks import ConfigError
from bench.job import LaunchResult, ReferenceJob
from bench.launch.launcher import Launcher, LaunchError
from bench.launch.local import launcher_for
from bench.measure.machine import limits
from bench.plan.cell import Cell
from bench.plan.jobs import Jobs, reference_key
from bench.plan.resolve import plan
from bench.sweep import estimate
from bench.sweep.announce import show_plan
from bench.sweep.budget import duration
from bench.sweep.estimate import LaunchPace
from bench.sweep.loading import check_workloads
from bench.sweep.scratch import scratch
from results.model import Model
from results.record import Record
from results.settings import Config
from terminal.tables import bare, console

STEPS = 2
"""Steps that the single process trains for the estimate."""


def run(configs: list[Config]) -> NoReturn:
    """Prints the plan and raises SystemExit with status 0. Raises ConfigError for what cannot be run."""
    preload = engines.preload(*(config.engine["package"] for config in configs))
    try:
        with scratch() as folder, launcher_for(preload) as launcher:
            cells = plan(configs, launcher.machine, limits.usable_cores())
            cells = check_workloads(cells, launcher, folder)
            show_plan(cells, launcher.machine, "nothing is measured (dry_run=true)")
            models, paces = measured(cells, launcher, folder)
            show(cells, models, estimate.seconds(cells, paces, folder))
    except LaunchError as error:
        raise ConfigError(str(error)) from error
    raise SystemExit(0)


def measured(cells: list[Cell], launcher: Launcher, folder: Path) -> tuple[dict[str, Model], dict[str, LaunchPace]]:
    """The model and the pace of each configuration that trains, by its id; equal work is tried once."""
    seen: dict[str, tuple[Model, LaunchPace] | None] = {}
    models, paces = {}, {}
    for cell in sorted(cells, key=lambda cell: cell.processes):
        if cell.status or not cell.trains:
            continue
        job = Jobs(cell, folder).reference()
        key = _key(job)
        if key not in seen:
            seen[key] = _try(cell, job, launcher)
        if tried := seen[key]:
            models[cell.id], paces[cell.id] = tried
    return models, paces


def _key(job: ReferenceJob) -> str:
    """Jobs with the same key have the same model and the same step on one rank."""
    return reference_key(dataclasses.replace(job, spec=dataclasses.replace(job.spec, world_size=1, clip_norm=None)))


def _try(cell: Cell, job: ReferenceJob, launcher: Launcher) -> tuple[Model, LaunchPace] | None:
    """Trains one model in one process, without and with steps; None, with a line on stderr, if that fails."""
    short = launcher.launch(dataclasses.replace(job, parity_steps=0))
    long = launcher.launch(dataclasses.replace(job, parity_steps=STEPS, memory=False))
    failed: LaunchResult[Any] | None = next((result for result in (short, long) if result.status != "ok"), None)
    if failed:
        print(f"{cell.id}: cannot be predicted: {failed.status}: {failed.reason}", file=sys.stderr)
        return None
    model: Model = short.ranks[0].model
    shares = max(1, cell.processes // job.ranks_per_replica)
    step_s = max(0.0, long.total_s - short.total_s) / (STEPS * shares)
    return model, LaunchPace(launch_s=short.total_s, step_s=step_s)


def show(cells: list[Cell], models: dict[str, Model], seconds: float) -> None:
    """The table of configurations on standard output, then the number of launches and the estimated time."""
    out = console()
    table = bare(("configuration", "launches", "model state", "peak"), ("configuration",), whole=("configuration",))
    for cell in cells:
        state, peak = predicted_bytes(cell, models[cell.id]) if cell.id in models else (None, None)
        timed = "search" if cell.searches else str(estimate.launches([cell]))
        words = [units.mib(value) if value is not None else "unknown" for value in (state, peak)]
        table.add_row(cell.id, cell.status or timed, *(["", ""] if cell.status else words))
    out.print(table)
    out.print("model state, peak: predicted MiB per rank; unknown: no formula for this engine or model")
    config = cells[0].config
    budget = f"; the time budget is {duration(config.budget_s)}" if config.budget_s is not None else ""
    searches = sum(cell.searches for cell in cells)
    unknown = f"; {units.counted(searches, 'search')} not included" if searches else ""
    sizes = f"{units.counted(len(cells), 'configuration')}, {units.counted(estimate.launches(cells), 'timed launch')}"
    out.print(f"{sizes}, about {_rounded(seconds)} without communication{budget}{unknown}", soft_wrap=True)


def predicted_bytes(cell: Cell, model: Model) -> tuple[int | None, int | None]:
    """Model state and peak memory per rank as formulas have them; None where there is no formula."""
    resolved = cell.resolved()
    resolved["engine"] = engines.expected(cell.config.engine["package"], cell.spec())
    record = Record(
        cell_id=cell.id,
        sweep_id="dry run",
        config=dataclasses.asdict(cell.config),
        resolved=resolved,
        environment={},
        model=model,
    )
    prediction = memory(record)
    return prediction.predicted_bytes, prediction.peak_predicted_bytes


def _rounded(seconds: float) -> str:
    """To two digits: an estimate has no more."""
    return f"{seconds / 60:.2g} min" if seconds >= 120 else f"{float(f'{seconds:.2g}'):g} s"
