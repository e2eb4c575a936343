"""Cells: requests resolved on this machine, each with an identity, its jobs, or the reason it cannot run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

from bench import engines
from bench.engines.spec import EngineSpec, Traits
from bench.job import Job, Machine, Purpose, WorkloadSpec
from bench.network.link import link_of
from bench.plan import collectives
from results.memory import Search
from results.precision import PRECISIONS
from results.quantities import size_bytes
from results.record import Status
from results.settings import MAX_BATCH, Config, Training, with_role

NOT_IDENTITY = with_role("sweep")
"""Settings of the sweep as a whole, which change no measurement."""


@dataclass(frozen=True)
class Cell:
    """One point of the sweep as it will run here."""

    config: Config
    device: str
    backend: str
    threads: int
    cores: float
    """CPUs that may be used: a whole number unless a quota is none."""
    status: Status | None
    """``unsupported`` or ``unavailable`` if it will not run."""
    reason: str

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
        asked = without(dataclasses.asdict(self.config), NOT_IDENTITY)
        return asked | {"device": self.device, "backend": self.backend, "threads": self.threads}

    @property
    def trains(self) -> bool:
        """Whether it has an engine and a model; ``workload=collectives`` has neither."""
        return not collectives.is_asked(self.config)

    @property
    def measured(self) -> Purpose:
        """The purpose of its repeated launches."""
        return "timing" if self.trains else "collectives"

    @property
    def rank_batch(self) -> int:
        """Samples per step and rank."""
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

    def oversubscribed(self, machine: Machine) -> bool:
        """Whether ranks share a GPU, or ranks and servers share a core."""
        if self.device == "cuda":
            return self.processes > machine.cuda_devices
        servers = 0 if self.status else self.traits().servers
        return (self.processes + servers) * self.threads > self.cores

    @property
    def searches(self) -> bool:
        """Whether the cell looks for its largest batch instead of being timed."""
        return self.config.search != "none"

    def search(self) -> Search:
        """The search that the cell asks for, nothing tried yet. A batch divides into whole micro-batches."""
        limit, traits = self.config.memory_limit, self.traits()
        parts = traits.microbatches // gcd(traits.microbatches, traits.ranks_per_replica)
        return Search(
            limit_bytes=None if limit is None else size_bytes(limit),
            granule=self.config.accumulate * parts,
            most=self.config.search_most or MAX_BATCH,
        )

    def spec(self) -> EngineSpec:
        config = self.config
        return EngineSpec(
            **{field.name: getattr(config, field.name) for field in dataclasses.fields(Training)},
            world_size=config.gpus,
            device=self.device,
            backend=self.backend,
            join=config.data_skew == "samples",
            options={key: value for key, value in config.engine.items() if key not in ("name", "package")},
        )

    def traits(self) -> Traits:
        """What the harness must know of the engine under these settings."""
        return engines.traits(self.config.engine["package"], self.spec())

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
            return "backend=fake runs rank 0 alone, which waits for nobody"
        if self.device == "cuda" and self.backend != "nccl" and self.config.gpus > 1:
            return f"backend={self.backend} communicates on the host, where a profile of the GPU does not show it"
        return "ranks have unequal numbers of steps (data_skew=samples)" if self.config.data_skew == "samples" else ""

    def unsilenced(self) -> str:
        """Why the cell cannot be timed without communication; empty if it can."""
        config = self.config
        if config.gpus == 1 or self.simulated:
            return "one rank has nobody to send to"
        if PRECISIONS[config.precision].loss_scaling:
            return f"precision={config.precision} skips updates when what it received is infinite"
        if config.data_skew == "samples":
            return "ranks that are done would wait for the others for ever (data_skew=samples)"
        reason = self.traits().unsilenced
        return f"engine={config.engine['name']}: {reason}" if reason else ""

    def job(self, purpose: Purpose, scratch: Path, *, silent: bool = False) -> Job:
        config = self.config
        options = {key: value for key, value in config.workload.items() if key not in ("name", "factory")}
        traits, alone = self.traits(), purpose in ("load", "reference", "noise")
        workload = WorkloadSpec(config.workload["factory"], config.seed, config.data_dir, options)
        job = Job(
            purpose=purpose,
            engine=config.engine["package"],
            spec=self.spec(),
            workload=workload,
            world_size=1 if alone else self.processes,
            rank_batch=self.rank_batch,
            steps=config.steps,
            warmup=config.warmup,
            batch_pool=config.measure.batch_pool,
            parity_steps=0 if self.outside_parity() or self.searches else config.measure.parity_steps,
            memory=config.measure.memory,
            threads=self.threads,
            deterministic=config.deterministic,
            timeout_s=config.timeout_s,
            reference="",
            ranks_per_replica=traits.ranks_per_replica,
            microbatches=traits.microbatches,
            partial_sums=traits.partial_sums,
            servers=0 if alone or purpose == "ceiling" else traits.servers,
            data_skew=config.data_skew,
            straggler_rank=config.straggler.rank,
            straggler_factor=config.straggler.factor,
            collectives=config.measure.collectives and not self.searches,
            memory_limit_bytes=self.search().limit_bytes if self.searches and not alone else None,
            network=None if alone or purpose == "ceiling" else link_of(config.network, config.gpus),
            silent=silent,
        )
        return dataclasses.replace(job, reference=str(scratch / f"{reference_key(job)}.pt"))

    def resolved(self) -> dict[str, Any]:
        """What the Record holds beside the request; the engine's own description is added once it has run."""
        traits = Traits() if self.status else self.traits()
        return {
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

    def _resolved_network(self, servers: int) -> dict[str, Any] | None:
        """The lab as the launches make it, in numbers; None without one."""
        link = None if self.status else link_of(self.config.network, self.config.gpus)
        if link is None:
            return None
        host_of_rank = [link.host_of(rank, self.config.gpus) for rank in range(self.config.gpus)]
        return dataclasses.asdict(link) | {"hosts": link.hosts + servers, "host_of_rank": host_of_rank}


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


def reference_key(job: Job) -> str:
    """Cells with the same key share one reference: what is trained is the same, whoever trains it."""
    spec = job.spec
    same = [spec.world_size, spec.device, spec.precision, spec.optimizer, spec.lr, spec.clip_norm, spec.accumulate]
    same += [dataclasses.asdict(job.workload), job.rank_batch, job.parity_steps, job.deterministic, job.threads]
    same += [job.ranks_per_replica, job.microbatches, job.data_skew, job.memory, job.spec.backend == "fake"]
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]


def noise_key(job: Job) -> tuple[object, ...]:
    """Cells with the same key share the noise of their reference: sums of their gradients are rounded alike."""
    return reference_key(job), job.spec.compression, job.partial_sums


def ceiling_key(job: Job) -> tuple[object, ...]:
    """Cells with the same key share one ceiling: as many ranks, on as many threads, multiply the same numbers."""
    return job.spec.device, PRECISIONS[job.spec.precision].compute, job.threads, job.world_size
