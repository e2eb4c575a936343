"""Whether each workload of a sweep can be built, checked before its first launch: a misspelt one ends it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from bench.checks import ConfigError
from bench.job import LaunchResult
from bench.launch.launcher import Launcher
from bench.plan.cell import Cell
from bench.plan.jobs import Jobs
from bench.rank_results import LoadResult
from results.settings import Config


def check_workloads(cells: list[Cell], launcher: Launcher, scratch: Path) -> list[Cell]:
    """Builds each model once, in a process of its own; the cells, with their samples where ``batch_tokens`` is set.

    Raises ConfigError for settings that a workload or its model rejects. Only that ends the sweep: where a factory
    fails in another way, the cells that need it say how.
    """
    loaded: dict[str, LaunchResult[LoadResult]] = {}
    checked = []
    for cell in cells:
        if not cell.status and cell.trains:
            job = Jobs(cell, scratch).load()
            key = json.dumps([dataclasses.asdict(job.workload), job.files, job.reads], sort_keys=True)
            if key not in loaded:
                loaded[key] = launcher.launch(job)
            if loaded[key].status == "unsupported":
                raise ConfigError(loaded[key].reason)
            if loaded[key].status == "ok" and loaded[key].ranks[0].wrote_files:
                check_files(cell, Path(str(job.files)))
            if cell.config.batch_tokens is not None and loaded[key].status == "ok":
                cell = dataclasses.replace(cell, samples=samples(cell.config, loaded[key].ranks[0]))
        checked.append(cell)
    return checked


def check_files(cell: Cell, folder: Path) -> None:
    """Raises ConfigError if the files that were made are not where all ranks of the cell read them."""
    if cell.hosts or not folder.is_dir():
        raise ConfigError("data=loader on several hosts needs data_dir: files are made on one of them only")


def samples(config: Config, workload: LoadResult) -> int:
    """Samples of all ranks that have ``batch_tokens`` tokens. Raises ConfigError if there are none of equal size."""
    tokens, name = config.batch_tokens or 0, config.workload["name"]
    if workload.unit != "token":
        raise ConfigError(
            f"batch_tokens={tokens} needs a workload of tokens; {name} counts in {workload.unit}s; valid: batch_size"
        )
    parts = config.gpus * config.accumulate
    if tokens % (workload.units_per_sample * parts):
        raise ConfigError(
            f"batch_tokens={tokens} cannot be shared evenly by gpus={config.gpus} and accumulate={config.accumulate} "
            f"in sequences of {workload.units_per_sample} tokens; valid: a multiple of "
            f"{workload.units_per_sample * parts}"
        )
    return tokens // workload.units_per_sample
