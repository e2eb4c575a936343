"""Combinations of settings that are not supported."""

from __future__ import annotations

from bench import engines
from bench.checks import ConfigError
from bench.engines.spec import EngineUnsupported
from bench.measure.machine.torch_build import Machine
from bench.network import lab
from bench.network.link import link_of
from bench.plan.cell import Cell


def reject_backend(cell: Cell, machine: Machine) -> None:
    """Raises EngineUnsupported for a backend that no engine could use here."""
    if cell.backend == "mpi" and not machine.mpi:
        raise EngineUnsupported(
            "backend=mpi: this torch was built without MPI, as all published wheels are. Valid: gloo"
        )
    hosts = [host.machine for host in cell.hosts] or [machine]
    gpus = sum(host.cuda_devices for host in hosts) if cell.device == "cuda" else 0
    if cell.backend == "nccl" and cell.config.gpus > gpus:
        raise EngineUnsupported(
            f"backend=nccl needs a GPU for each of gpus={cell.config.gpus} ranks; device={cell.device} has {gpus}. "
            "Valid here: gloo"
        )


def reject_hosts(cell: Cell) -> None:
    """Raises EngineUnsupported for what does not work across hosts."""
    name, hosts = cell.config.engine["name"], len(cell.hosts)
    if cell.trains and engines.load(cell.config.engine["package"]).CAPABILITIES.only_loopback:
        raise EngineUnsupported(
            f"engine={name} has no ranks on {hosts} hosts: they synchronize over 127.0.0.1. Valid: gpus that fit one "
            "host, or engine=native, torch or deepspeed"
        )
    if cell.backend not in ("gloo", "nccl"):
        raise EngineUnsupported(f"backend={cell.backend} is not supported on {hosts} hosts. Valid: gloo, nccl")
    size = cell.config.secondary_shard_size
    if size and any(count % size for count in cell.ranks_by_host):
        counts = ", ".join(map(str, cell.ranks_by_host))
        raise EngineUnsupported(
            f"secondary_shard_size={size} does not divide the ranks of each host ({counts}), so a copy would span "
            "hosts. Valid: a divisor of these, another gpus, cluster.ranks_per_host, or null"
        )
    unconnected = [host.name for host in cell.hosts if not host.interface]
    if unconnected:
        raise EngineUnsupported(
            f"{unconnected[0]} has no network interface with the address by which it joined; set cluster.interface"
        )


def reject_shards(cell: Cell) -> None:
    """Raises EngineUnsupported for a shard per host, real or emulated, whose ranks are too few or not equally many."""
    first, *others = cell.ranks_of_hosts
    if cell.config.shard_size == 0 and others and (first < 2 or others != [first] * len(others)):
        counts = ", ".join(map(str, [first, *others]))
        setting = "cluster.ranks_per_host" if cell.hosts else "network.hosts"
        raise EngineUnsupported(
            f"shard_size=0 needs equally many ranks on each host, at least 2; there are {counts}. Valid: another gpus, "
            f"{setting}, or null"
        )


def reject_unrepeatable(cell: Cell) -> None:
    """Raises EngineUnsupported for determinism that the engine cannot give."""
    reason = cell.traits().unrepeatable
    if cell.config.deterministic and reason:
        raise EngineUnsupported(f"engine={cell.config.engine['name']} has no deterministic=true: {reason}")


def reject_simulated(cell: Cell) -> None:
    """Raises EngineUnsupported for settings that need the other ranks of a simulated world."""
    config = cell.config
    if cell.simulated and config.straggler.rank is not None:
        raise EngineUnsupported(
            f"backend=fake has no straggler.rank={config.straggler.rank}: no rank waits for another"
        )
    if cell.simulated and config.data_skew != "none":
        raise EngineUnsupported(f"backend=fake has no data_skew={config.data_skew}: no rank has the other samples")
    if cell.simulated and config.target_loss is not None:
        raise EngineUnsupported(
            f"backend=fake has no target_loss={config.target_loss:g}: no gradient of another rank is in its updates"
        )


def reject_search(cell: Cell) -> None:
    """Raises ConfigError for a search without a limit, EngineUnsupported for one without a batch to try."""
    if not cell.searches:
        return
    search = cell.search()
    if search.limit_bytes is None and cell.device == "cpu":
        raise ConfigError("search=max_batch needs memory_limit on device=cpu; valid: a size such as 2GiB or 500MB")
    if search.max_batch < search.multiple_of:
        raise EngineUnsupported(
            f"search_most={search.max_batch} is less than one batch; valid: at least {search.multiple_of}"
        )


def reject_straggler(cell: Cell) -> None:
    """Raises EngineUnsupported where a rank has no forward and backward of its own that could be slowed."""
    config, together = cell.config, cell.traits().ranks_per_replica
    if config.straggler.rank is not None and together > 1:
        raise EngineUnsupported(
            f"engine={config.engine['name']} has no straggler.rank={config.straggler.rank}: {together} ranks share one "
            "forward and backward, and a straggler is slowed by the time of a whole one"
        )


def reject_loader(cell: Cell) -> None:
    """Raises EngineUnsupported for settings of a DataLoader that have no effect, or that it cannot honor."""
    config, loader = cell.config, cell.loader
    if loader is None:
        return
    if config.data_skew == "labels":
        raise EngineUnsupported(
            "data=loader has no data_skew=labels: to sort a global batch, each rank would read all of it. Valid: "
            "data_skew=none or samples, or data=pool"
        )
    if loader.pin_memory and cell.device != "cuda":
        raise EngineUnsupported(
            f"loader.pin_memory=true has no effect on device={cell.device}; valid: null, false, or device=cuda"
        )
    if config.loader.prefetch is not None and not loader.workers:
        raise EngineUnsupported(
            f"loader.prefetch={config.loader.prefetch} needs loader.workers of at least 1; with 0, valid: null"
        )


def reject_network(cell: Cell) -> None:
    """Raises EngineUnsupported for a lab that cannot be made here, or that not all traffic would go through."""
    config = cell.config
    link = link_of(config.network, config.gpus)
    if link is None:
        return
    if link.hosts > config.gpus:
        raise EngineUnsupported(
            f"network.hosts={link.hosts} is more than gpus={config.gpus}; valid: 1 to {config.gpus}, null"
        )
    if cell.backend != "gloo":
        raise EngineUnsupported(f"network=lab cannot hold backend={cell.backend} to its links. Valid: gloo")
    if engines.load(config.engine["package"]).CAPABILITIES.only_loopback:
        raise EngineUnsupported(f"engine={config.engine['name']} has no network=lab: its ranks connect over 127.0.0.1")
    if obstacle := lab.obstacle(link):
        raise EngineUnsupported(obstacle)
