"""Whether each workload of a sweep can be loaded, checked before its first launch: a misspelt one ends it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from bench.checks import ConfigError
from bench.launch.launcher import Launcher
from bench.plan.cell import Cell
from bench.plan.jobs import Jobs


def check_workloads(cells: list[Cell], launcher: Launcher, scratch: Path) -> None:
    """Loads each workload once, in a process of its own. Raises ConfigError for one that rejects its settings.

    Only a refusal ends the sweep: where a factory fails in another way, the cells that need it say how.
    """
    loaded: set[str] = set()
    for cell in cells:
        if cell.status or not cell.trains:
            continue
        job = Jobs(cell, scratch).load()
        key = json.dumps(dataclasses.asdict(job.workload), sort_keys=True)
        if key in loaded:
            continue
        loaded.add(key)
        result = launcher.launch(job)
        if result.status == "unsupported":
            raise ConfigError(result.reason)
