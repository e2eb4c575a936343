"""From settings to cells: device, backend and all that follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bench import engines
from bench.checks import ConfigError
from bench.engines.spec import EngineUnavailable, EngineUnsupported, OptionInvalid
from bench.launch.launcher import Host
from bench.measure.machine.torch_build import Machine
from bench.plan import collectives
from bench.plan.alternatives import alternatives
from bench.plan.cell import Cell
from bench.plan.hosts import placed
from bench.plan.unsupported import (
    reject_backend,
    reject_hosts,
    reject_loader,
    reject_network,
    reject_search,
    reject_shards,
    reject_simulated,
    reject_straggler,
    reject_unrepeatable,
)
from results.settings import Config, Loader, Measure


def plan(configs: list[Config], machine: Machine, cores: float, hosts: Sequence[Host] = ()) -> list[Cell]:
    """Resolves every request on this machine, or on ``hosts``; equal ones are one cell.

    ``machine`` and ``cores`` are the first host's. Raises ConfigError for what it lacks.
    """
    hosts = hosts or [Host("", machine, cores)]
    most_ranks = max(most_on_a_host(config, resolve_device(config, machine), hosts) for config in configs)
    readers = max(config.loader.workers if config.data == "loader" else 0 for config in configs)
    cells = {}
    for config in map(with_effect, configs):
        device = resolve_device(config, machine)
        threads = config.threads or max(1, int(min(host.cores for host in hosts) // most_ranks) - readers)
        cell = Cell(config, device, resolve_backend(config, device, hosts), threads, cores, None, "")
        try:
            counts = placed(config, device, hosts)
            if len(counts) > 1:
                cell = dataclasses.replace(cell, hosts=tuple(hosts[: len(counts)]), ranks_by_host=tuple(counts))
                reject_hosts(cell)
            reject_shards(cell)
            reject_backend(cell, machine)
            if cell.trains:
                _reject_by_engine(cell)
                reject_unrepeatable(cell)
                reject_simulated(cell)
                reject_search(cell)
                reject_straggler(cell)
                reject_loader(cell)
            else:
                collectives.check_settings(config, cell.backend)
            reject_network(cell)
        except EngineUnsupported as error:
            cell = dataclasses.replace(cell, status="unsupported", reason=str(error))
        except EngineUnavailable as error:
            cell = dataclasses.replace(cell, status="unavailable", reason=str(error))
        cells[cell.id] = cell
    return list(cells.values())


def with_effect(config: Config) -> Config:
    """The request with the defaults of what has no effect: a DataLoader's settings for a pool, and the other way round.

    So cells that differ in nothing else are one.
    """
    if config.data == "pool":
        return dataclasses.replace(config, loader=Loader())
    return dataclasses.replace(config, measure=dataclasses.replace(config.measure, batch_pool=Measure.batch_pool))


def _reject_by_engine(cell: Cell) -> None:
    """Raises EngineUnsupported, with an engine and stage that do support the settings, or EngineUnavailable.

    Raises ConfigError for a value of an engine's option that is never valid.
    """
    name, spec = cell.config.engine["name"], cell.spec()
    try:
        engines.check_settings(name, cell.config.engine["package"], spec)
    except OptionInvalid as error:
        raise ConfigError(str(error)) from error
    except EngineUnsupported as error:
        other = alternatives(name, spec)
        raise EngineUnsupported(f"{error}; {other}" if other else str(error)) from error


def resolve_device(config: Config, machine: Machine) -> str:
    if config.device == "cuda" and not machine.cuda_devices:
        raise ConfigError("device=cuda is not possible here: torch sees no GPU; valid: auto, cpu")
    if config.device == "auto":
        return "cuda" if machine.cuda_devices else "cpu"
    return config.device


def most_on_a_host(config: Config, device: str, hosts: Sequence[Host]) -> int:
    """The most ranks of a configuration that share a host; 1 where they do not fit the hosts."""
    try:
        return 1 if config.backend == "fake" else max(placed(config, device, hosts))
    except EngineUnsupported:
        return 1


def resolve_backend(config: Config, device: str, hosts: Sequence[Host]) -> str:
    if config.backend != "auto":
        return config.backend
    machine, gpus = hosts[0].machine, sum(host.machine.cuda_devices for host in hosts)
    own_gpu = device == "cuda" and config.gpus <= gpus
    return "nccl" if own_gpu and machine.nccl and "nccl" in engines.backends(config.engine["package"]) else "gloo"
