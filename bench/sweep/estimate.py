"""Estimated duration of a sweep, from the time of a single process per model. Communication is not included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.plan.cell import Cell
from bench.plan.jobs import Jobs, ceiling_key, reference_key

CEILING_S = 2.0
"""Seconds that one measurement of peak FLOP/s takes beyond its launch."""
WATCHED_STEPS = 2
"""Steps of a check after its parity steps: one for memory, one for the collectives."""
PROFILE_STEPS = 3
END_S = 15.0
"""Seconds for the report and for tracking at the end of a sweep, about."""


@dataclass(frozen=True)
class LaunchPace:
    """Times of a single process with one model."""

    launch_s: float
    """From the launch of a process until its first step, and its end."""
    step_s: float
    """One step on one rank's batch, on the cores or the GPU of one rank."""


def launches(cells: Sequence[Cell]) -> int:
    """Timed launches of all rounds, with those without communication; a search counts as none."""
    return sum(_timed(cell) for cell in cells)


def seconds(cells: Sequence[Cell], paces: Mapping[str, LaunchPace], scratch: Path) -> float:
    """Seconds of all launches of the sweep, one after another, and of its end.

    ``paces`` are by configuration id; a configuration without one counts as nothing.
    """
    cells = [cell for cell in cells if cell.id in paces]
    own = sum(_own_s(cell, paces[cell.id]) for cell in cells)
    shared = _shared_s(cells, paces, scratch)
    return own + shared + END_S


def _own_s(cell: Cell, pace: LaunchPace) -> float:
    """A configuration's own launches: its check, its profile and its rounds."""
    config, measure = cell.config, cell.config.measure
    step_s, launch_s = pace.step_s * _crowding(cell), pace.launch_s * max(1.0, cell.processes / cell.cores)
    checks = measure.parity_steps or measure.memory or measure.collectives
    total = launch_s + (measure.parity_steps + WATCHED_STEPS) * step_s if checks and cell.trains else 0.0
    if measure.profile or measure.trace:
        total += launch_s + PROFILE_STEPS * step_s
    return total + _timed(cell) * (launch_s + (config.warmup + config.steps) * step_s)


def _shared_s(cells: Iterable[Cell], paces: Mapping[str, LaunchPace], scratch: Path) -> float:
    """References and peak FLOP/s, each measured once for all configurations that share it."""
    references, ceilings = {}, {}
    for cell in cells:
        pace, steps = paces[cell.id], cell.config.measure.parity_steps * cell.processes
        if cell.trains:
            references[reference_key(Jobs(cell, scratch).reference())] = pace.launch_s + steps * pace.step_s
        if cell.config.measure.ceiling and not cell.simulated:
            ceilings[ceiling_key(Jobs(cell, scratch).ceiling())] = pace.launch_s + CEILING_S
    return sum(references.values()) + sum(ceilings.values())


def _timed(cell: Cell) -> int:
    if cell.status or cell.searches:
        return 0
    silent = cell.config.measure.profile and not cell.unsilenced()
    return cell.config.repeats * (2 if silent else 1)


def _crowding(cell: Cell) -> float:
    """How much longer a step takes because ranks share cores; GPUs are not shared in time here."""
    return max(1.0, cell.processes * cell.threads / cell.cores) if cell.device == "cpu" else 1.0
