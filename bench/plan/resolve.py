"""From settings to cells: device, backend and all that follows."""

from __future__ import annotations

import dataclasses

from bench import engines
from bench.checks import ConfigError
from bench.engines.spec import EngineUnavailable, EngineUnsupported
from bench.job import Machine
from bench.plan import collectives
from bench.plan.cell import Cell
from bench.plan.unsupported import (
    refuse_backend,
    refuse_network,
    refuse_search,
    refuse_simulated,
    refuse_straggler,
    refuse_unrepeatable,
)
from results.settings import Config


def plan(configs: list[Config], machine: Machine, cores: float) -> list[Cell]:
    """Resolves every request on this machine; equal ones are one cell. Raises ConfigError for what it lacks."""
    most_ranks = max(1 if config.backend == "fake" else config.gpus for config in configs)
    cells = {}
    for config in configs:
        device = resolve_device(config, machine)
        threads = config.threads or max(1, int(cores // most_ranks))
        cell = Cell(config, device, resolve_backend(config, device, machine), threads, cores, None, "")
        try:
            refuse_backend(cell, machine)
            if cell.trains:
                engines.refuse(config.engine["name"], config.engine["package"], cell.spec())
                refuse_unrepeatable(cell)
                refuse_simulated(cell)
                refuse_search(cell)
                refuse_straggler(cell)
            else:
                collectives.refuse(config, cell.backend)
            refuse_network(cell)
        except EngineUnsupported as error:
            cell = dataclasses.replace(cell, status="unsupported", reason=str(error))
        except EngineUnavailable as error:
            cell = dataclasses.replace(cell, status="unavailable", reason=str(error))
        cells[cell.id] = cell
    return list(cells.values())


def resolve_device(config: Config, machine: Machine) -> str:
    if config.device == "cuda" and not machine.cuda_devices:
        raise ConfigError("device=cuda is not possible here: torch sees no GPU; valid: auto, cpu")
    if config.device == "auto":
        return "cuda" if machine.cuda_devices else "cpu"
    return config.device


def resolve_backend(config: Config, device: str, machine: Machine) -> str:
    if config.backend != "auto":
        return config.backend
    own_gpu = device == "cuda" and config.gpus <= machine.cuda_devices
    return "nccl" if own_gpu and machine.nccl and "nccl" in engines.backends(config.engine["package"]) else "gloo"
