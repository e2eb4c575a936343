"""What the launcher sends to ranks, and what comes back: one launch as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from bench.engines.spec import EngineSpec
from bench.network.link import Link
from results.launches import ServerCounts
from results.record import RankEnd

R = TypeVar("R")
"""The results of one rank (``bench.rank_results``)."""

Purpose = Literal["load", "reference", "noise", "check", "ceiling", "timing", "profile", "collectives"]


@dataclass(frozen=True)
class WorkloadSpec:
    """Enough to build the same workload in any process (``workloads.load``)."""

    factory: str
    seed: int
    data_dir: str | None
    options: dict[str, Any]

    @property
    def is_built_in(self) -> bool:
        """Whether loading it runs no code but the suite's own, which changes no global state."""
        module = self.factory.partition(":")[0]
        return module.startswith("workloads.") and module != "workloads.module"

    @property
    def called(self) -> str:
        """Whose code builds it: a person's own module (workload=module), or the factory."""
        return str(self.options.get("path") or self.factory)


@dataclass(frozen=True)
class Job:
    """One launch: ``world_size`` fresh processes with one purpose.

    - ``load``: a single process that loads the workload, and nothing else: whether its settings are valid.
    - ``reference``: a single process, no engine; trains the parity steps and counts what the model is.
    - ``noise``: the same process several times, rounded otherwise each time: how finely parity can judge.
    - ``check``: parity against the reference, then model state and peak bytes of a step, then the collectives of
      another. Nothing is timed.
    - ``ceiling``: what all ranks at once reach in matrix products alone, without engine or workload.
    - ``timing``: warm-up and measured steps. Nothing else is observed.
    - ``profile``: what a few steps are made of, under torch's profiler.
    - ``collectives``: the collectives themselves, by size; no engine, and ``steps`` and ``warmup`` are iterations.
    """

    purpose: Purpose
    engine: str
    """The engine's package."""
    spec: EngineSpec
    workload: WorkloadSpec
    world_size: int
    """Processes in this launch; the reference has one and plays ``spec.world_size`` ranks, a simulated world one
    of them."""
    rank_batch: int
    """Samples per step and rank."""
    steps: int
    warmup: int
    batch_pool: int
    parity_steps: int
    memory: bool
    threads: int
    deterministic: bool
    timeout_s: float
    reference: str
    """File that the reference writes and rank 0 of the check reads."""
    ranks_per_replica: int = 1
    """Consecutive ranks that train on the same samples, because they compute one replica together."""
    microbatches: int = 1
    """Parts that the engine cuts each micro-batch into."""
    partial_sums: bool = False
    """Whether ranks add up partial results of a layer."""
    servers: int = 0
    """Processes beside the ranks, numbered after them, that run the engine's ``serve``."""
    data_skew: str = "none"
    straggler_rank: int | None = None
    straggler_factor: float = 1.0
    collectives: bool = False
    memory_limit_bytes: int | None = None
    """What a rank's caching allocator may take of its GPU; None: all."""
    network: Link | None = None
    """The lab that the launch runs in; None: the machine as it is."""
    silent: bool = False
    """Whether collectives send nothing and wait for nobody (torch's fake process group)."""


@dataclass(frozen=True)
class LaunchResult(Generic[R]):
    """How a launch ended. If it is ok, there is one result per rank and per server, else one of ``ends`` for each."""

    status: str
    reason: str = ""
    ranks: list[R] = field(default_factory=list)
    servers: list[ServerCounts] = field(default_factory=list)
    ends: list[RankEnd] = field(default_factory=list)
    total_s: float = 0.0
    start_method: str = "fork"
    by_chance: bool = False
    """Whether a process was killed from outside: the same launch may well succeed."""
    blame: int = 0
    """How likely a failure's cause is on this host, 0 the likeliest: ``bench.launch.forkserver.outcome.blame``."""


@dataclass(frozen=True)
class Machine:
    """What the fork server found: the part of the environment that only torch can tell."""

    torch: str
    cuda_devices: int
    nccl: str | None
    warm_up_s: float
    mpi: bool = False
    """Whether torch was built with MPI."""
    cuda: str | None = None
    """The CUDA that torch was built with."""
    cudnn: str | None = None
    cpu_capability: str = ""
    """The vector instructions that torch's own kernels use here, which decide the order of their sums."""
