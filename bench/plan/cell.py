"""Cells: requests resolved on this machine, each with an identity, or the reason it cannot run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from math import gcd
from typing import Any

from bench import engines
from bench.engines.spec import EngineSpec, Traits
from bench.job import LoaderSettings
from bench.launch.launcher import Host
from bench.measure.machine.torch_build import Machine
from bench.network.link import link_of
from bench.plan import collectives
from results.memory import Search
from results.precision import PRECISIONS
from results.quantities import size_bytes
from results.record import Status
from results.resolved import HostRanks, Resolved, ResolvedNetwork
from results.settings import MAX_BATCH, Config, with_role
from results.training_settings import Training

PREFETCH = 2
"""Batches that a worker of torch's DataLoader reads in advance, unless it is set."""
NOT_IDENTITY = with_role("sweep")
"""Settings of the sweep as a whole, which change no measurement."""


@dataclass(frozen=True)
class Cell:
    """One point of the sweep's grid, resolved on this machine."""

    config: Config
    device: str
    backend: str
    threads: int
    cores: float
    """CPUs that may be used: a whole number unless a quota is none."""
    status: Status | None
    """``unsupported`` or ``unavailable`` if it will not run."""
    reason: str
    hosts: tuple[Host, ...] = ()
    """The hosts that it runs on, where they are several; else empty."""
    ranks_by_host: tuple[int, ...] = ()
    """Ranks on each of ``hosts``."""
    samples: int | None = None
    """Samples per step over all ranks, where ``batch_tokens`` sets them and the workload is loaded."""

    @property
    def id(self) -> str:
        """Readable and unique: the same for the same setting on the same kind of machine."""
        config = self.config
        digest = hashlib.sha256(json.dumps(self._identity(), sort_keys=True).encode()).hexdigest()[:8]
        if not self.trains:
            return "-".join((config.workload["name"], f"n{config.gpus}", self.backend, digest))
        parts = (config.engine["name"], f"s{config.stage}", f"n{config.gpus}", config.workload["name"])
        return "-".join((*parts, config.precision, digest))

    def _identity(self) -> dict[str, Any]:
        settings = without(dataclasses.asdict(self.config), NOT_IDENTITY)
        del settings["cluster"]  # it is what follows from it that counts
        placed = {"ranks_by_host": self.ranks_by_host} if self.ranks_by_host else {}
        return settings | placed | {"device": self.device, "backend": self.backend, "threads": self.threads}

    @property
    def trains(self) -> bool:
        """Whether it has an engine and a model; ``workload=collectives`` has neither."""
        return not collectives.is_workload_of(self.config)

    @property
    def rank_batch(self) -> int:
        """Samples per step and rank."""
        if self.samples is not None:
            return self.samples // self.config.gpus
        return self.config.batch_size // (self.config.gpus if self.config.scaling == "strong" else 1)

    @property
    def global_batch(self) -> int:
        return self.rank_batch * self.config.gpus

    @property
    def simulated(self) -> bool:
        """Whether rank 0 runs alone, in a world that is not there."""
        return self.backend == "fake"

    @property
    def processes(self) -> int:
        """Ranks that there are."""
        return 1 if self.simulated else self.config.gpus

    @property
    def loader(self) -> LoaderSettings | None:
        """What reads the batches of each rank; None where they are ready before."""
        if self.config.data != "loader":
            return None
        requested = self.config.loader
        pinned = self.device == "cuda" if requested.pin_memory is None else requested.pin_memory
        return LoaderSettings(requested.workers, requested.prefetch or PREFETCH, pinned)

    def oversubscribed(self, machine: Machine) -> bool:
        """Whether ranks share a GPU, or ranks, servers and processes that read data share a core."""
        servers = 0 if self.status else self.traits().servers
        counts = self.ranks_by_host or (self.processes,)
        hosts = self.hosts or (Host("", machine, self.cores),)
        readers = self.loader.workers if self.loader else 0
        if self.device == "cuda":
            return any(
                count > host.machine.cuda_devices or count * readers > host.cores
                for count, host in zip(counts, hosts, strict=True)
            )
        processes = (counts[0] + servers, *counts[1:])  # servers run on the first host
        return any(
            count * self.threads + ranks * readers > host.cores
            for count, ranks, host in zip(processes, counts, hosts, strict=True)
        )

    @property
    def searches(self) -> bool:
        """Whether the cell looks for its largest batch instead of being timed."""
        return self.config.search != "none"

    def search(self) -> Search:
        """The cell's search before its first trial. A batch divides into whole micro-batches."""
        limit, traits = self.config.memory_limit, self.traits()
        parts = traits.microbatches // gcd(traits.microbatches, traits.ranks_per_replica)
        return Search(
            limit_bytes=None if limit is None else size_bytes(limit),
            multiple_of=self.config.accumulate * parts,
            max_batch=self.config.search_most or MAX_BATCH,
        )

    @property
    def shard_size(self) -> int | None:
        """Ranks that share one copy of the model state; None for all."""
        if self.config.shard_size == 0:
            counts = self.ranks_of_hosts
            return counts[0] if len(counts) > 1 else None
        return self.config.shard_size

    @property
    def ranks_of_hosts(self) -> list[int]:
        """Ranks on each host, real or emulated."""
        if self.hosts:
            return list(self.ranks_by_host)
        ranks, link = self.config.gpus, link_of(self.config.network, self.config.gpus)
        if link is None:
            return [ranks]
        host_of_rank = [link.host_of(rank, ranks) for rank in range(ranks)]
        return [host_of_rank.count(host) for host in range(link.hosts)]

    def spec(self) -> EngineSpec:
        config = self.config
        training = {field.name: getattr(config, field.name) for field in dataclasses.fields(Training)}
        return EngineSpec(
            **training | {"shard_size": self.shard_size},
            world_size=config.gpus,
            device=self.device,
            backend=self.backend,
            join=config.data_skew == "samples",
            options={key: value for key, value in config.engine.items() if key not in ("name", "package")},
        )

    def traits(self) -> Traits:
        """How the engine differs from plain data parallelism under these settings."""
        return engines.traits(self.config.engine["package"], self.spec())

    @property
    def is_sharded(self) -> bool:
        """Whether a rank has a part of each parameter, outside of the forward of its unit."""
        return self.config.stage == 3 or self.traits().ranks_per_replica > 1

    def outside_parity(self) -> str:
        """Why training cannot equal a single process's; empty if it must."""
        if self.simulated:
            return f"backend=fake runs rank 0 of {self.config.gpus} alone, so there is no training to compare"
        if self.config.data_skew == "samples":
            return "ranks hold unequal numbers of samples"
        return self.traits().outside_parity

    def unprofiled(self) -> str:
        """Why steps cannot be attributed to their parts; empty if they can."""
        if self.simulated:
            return "backend=fake runs rank 0 alone, which waits for no other rank"
        if self.device == "cuda" and self.backend != "nccl" and self.config.gpus > 1:
            return f"backend={self.backend} communicates on the host, where a profile of the GPU does not show it"
        return "ranks have unequal numbers of steps (data_skew=samples)" if self.config.data_skew == "samples" else ""

    def unsilenced(self) -> str:
        """Why the cell cannot be timed without communication; empty if it can."""
        config = self.config
        if config.gpus == 1 or self.simulated:
            return "one rank has no other to send to"
        if PRECISIONS[config.precision].loss_scaling:
            return f"precision={config.precision} skips updates when what it received is infinite"
        if config.data_skew == "samples":
            return "ranks that are done would wait for the others for ever (data_skew=samples)"
        reason = self.traits().unsilenced
        return f"engine={config.engine['name']}: {reason}" if reason else ""

    def resolved(self) -> Resolved:
        """The Record's settings in addition to the request; the engine's own description is added once it has run."""
        traits = Traits() if self.status else self.traits()
        resolved: Resolved = {
            "world_size": self.config.gpus,
            "device": self.device,
            "backend": self.backend,
            "threads": self.threads,
            "cores": self.cores,
            "rank_batch": self.rank_batch,
            "global_batch": self.global_batch,
            "accumulate": self.config.accumulate,
            "ranks_per_replica": traits.ranks_per_replica,
            "servers": traits.servers,
            "simulated": self.simulated,
            "synchronous": traits.synchronous,
            "uncounted": traits.uncounted,
            "network": self._resolved_network(traits.servers),
            "outside_parity": "" if self.status else self.outside_parity(),
            "engine": {},
        }
        if self.hosts:
            resolved["hosts"] = self._resolved_hosts()
        return resolved

    def _resolved_hosts(self) -> list[HostRanks]:
        """Where the ranks run: block by block, in this order."""
        return [
            {"name": host.name, "interface": host.interface, "cores": host.cores, "ranks": count}
            for host, count in zip(self.hosts, self.ranks_by_host, strict=True)
        ]

    def _resolved_network(self, servers: int) -> ResolvedNetwork | None:
        """The lab as the launches make it, in numbers; None without one."""
        link = None if self.status else link_of(self.config.network, self.config.gpus)
        if link is None:
            return None
        host_of_rank = [link.host_of(rank, self.config.gpus) for rank in range(self.config.gpus)]
        return {
            "bits_per_s": link.bits_per_s,
            "delay_s": link.delay_s,
            "hosts": link.hosts + servers,
            "host_of_rank": host_of_rank,
        }


def without(document: dict[str, Any], paths: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    """A nested dict less the entries at these dotted paths, and less the dicts that this empties."""
    kept = {}
    for name, value in document.items():
        path = prefix + name
        if path in paths:
            continue
        if isinstance(value, dict) and any(other.startswith(f"{path}.") for other in paths):
            value = without(value, paths, f"{path}.")
            if not value:
                continue
        kept[name] = value
    return kept
