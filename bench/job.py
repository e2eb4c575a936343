"""Jobs, one class per purpose of a launch, and the result of a launch: what passes between launcher and ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from bench.engines.spec import EngineSpec
from bench.network.link import Link
from bench.rank_results import (
    CeilingResult,
    CheckResult,
    CollectivesResult,
    HostCheckResult,
    LoadResult,
    NoiseResult,
    ProfileResult,
    ReferenceResult,
    TimingResult,
)
from results.launches import ServerCounts
from results.record import RankEnd

R = TypeVar("R")
"""The results of one rank (``bench.rank_results``)."""


@dataclass(frozen=True)
class TracePlace:
    """Where the ranks of a launch write trace files."""

    folder: str
    """Exists on the coordinator's host."""
    cell: str
    """Begins the name of each file."""


@dataclass(frozen=True)
class LoaderSettings:
    """The DataLoader of each rank."""

    workers: int
    """Processes; 0: the rank reads its batches itself."""
    prefetch: int
    """Micro-batches that each worker reads in advance; without effect where there is none."""
    pin_memory: bool
    folder: str = ""
    """For sockets of the processes, where it exists; it is removed after the sweep, however they end."""


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


@dataclass(frozen=True, kw_only=True)
class Job(Generic[R]):
    """A launch of ``world_size`` fresh processes, each of which returns a result ``R``."""

    is_timed: ClassVar[bool] = False
    """Whether its results are times."""

    world_size: int
    """Ranks in this launch. The reference has one, and plays all of ``spec.world_size``; a simulated world has one."""
    threads: int
    deterministic: bool
    timeout_s: float
    servers: int = 0
    """Processes in addition to the ranks, numbered after them, that run the engine's ``serve``."""
    network: Link | None = None
    """The emulated network of the launch; None: the machine as it is."""
    ranks_by_host: list[int] = field(default_factory=list)
    """How many ranks run on each host, in their order; empty: all on one."""

    if TYPE_CHECKING:

        @property
        def device(self) -> str:
            """``cpu`` or ``cuda``; a field, or that of the engine's spec."""

        @property
        def backend(self) -> str:
            """Of the process group, likewise."""


@dataclass(frozen=True, kw_only=True)
class WorkloadJob(Job[R]):
    """A launch whose ranks load a workload."""

    workload: WorkloadSpec


@dataclass(frozen=True, kw_only=True)
class LoadJob(WorkloadJob[LoadResult]):
    """A single process that loads the workload and builds its model: whether its settings are valid."""

    device: ClassVar[str] = "cpu"
    files: str | None = None
    """Folder in which it writes its samples as files, which a DataLoader will read; None: it writes none."""
    reads: bool = False
    """Whether a DataLoader will read its samples."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob(WorkloadJob[R]):
    """A launch that trains the workload, with an engine or without."""

    spec: EngineSpec
    rank_batch: int
    """Samples per step and rank."""
    ranks_per_replica: int = 1
    """Consecutive ranks that train on the same samples, because they compute one replica together."""
    data_skew: str = "none"

    @property
    def device(self) -> str:
        return self.spec.device

    @property
    def backend(self) -> str:
        return self.spec.backend


@dataclass(frozen=True, kw_only=True)
class SingleProcessJob(TrainingJob[R]):
    """One process without an engine, which trains on the micro-batches of all ranks."""

    parity_steps: int
    reference: str
    """File that the reference writes, and that checks and noise read."""
    microbatches: int = 1
    """Parts that the engine cuts each micro-batch into."""


@dataclass(frozen=True, kw_only=True)
class ReferenceJob(SingleProcessJob[ReferenceResult]):
    """Trains the parity steps of a single process, and counts parameters, operations and memory of the model."""

    memory: bool
    """Whether it counts the activations of a micro-batch."""


@dataclass(frozen=True, kw_only=True)
class NoiseJob(SingleProcessJob[NoiseResult]):
    """Trains them several times, rounded otherwise each time: how finely parity can judge."""

    partial_sums: bool = False
    """Whether ranks add up partial results of a layer."""


@dataclass(frozen=True, kw_only=True)
class EngineJob(TrainingJob[R]):
    """A launch that trains with an engine."""

    engine: str
    """Its package."""
    first_use: str = ""
    """What the loss uses of the module before it calls it, as the reference has seen
    (``results.model.StepProperties``)."""
    loader: LoaderSettings | None = None
    """What reads the batches of parity and of steps that are observed; None: they are made in advance."""


@dataclass(frozen=True, kw_only=True)
class CheckJob(EngineJob[CheckResult]):
    """Parity against the reference, then model state and peak bytes of steps, then the collectives of one."""

    parity_steps: int
    reference: str
    partial_sums: bool = False
    memory: bool
    collectives: bool
    memory_limit_bytes: int | None = None
    """Limit of a rank's caching allocator on its GPU; None: all of it."""
    traces: TracePlace | None = None
    """Where the memory of one step is written; None: nowhere."""


@dataclass(frozen=True, kw_only=True)
class StepsJob(EngineJob[R]):
    """Warm-up steps and steps that are observed, over a pool of batches."""

    is_timed: ClassVar[bool] = True

    steps: int
    warmup: int
    batch_pool: int
    straggler_rank: int | None = None
    straggler_factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TimingJob(StepsJob[TimingResult]):
    """Measured steps. Nothing else is observed."""

    silent: bool = False
    """Whether it runs without communication (torch's fake process group)."""
    target_loss: float | None = None
    """Ends it once the smoothed loss is at most this (``results.target``); None: it takes all its steps."""
    synchronous: bool = True
    """Whether ranks wait for each other in each step."""


@dataclass(frozen=True, kw_only=True)
class ProfileJob(StepsJob[ProfileResult]):
    """The parts of a few steps, under torch's profiler."""

    traces: TracePlace | None = None
    """Where the profile is written; None: nowhere."""


@dataclass(frozen=True, kw_only=True)
class MachineJob(Job[R]):
    """Measures the machine, without engine and workload."""

    is_timed: ClassVar[bool] = True

    device: str
    backend: str


@dataclass(frozen=True, kw_only=True)
class CeilingJob(MachineJob[CeilingResult]):
    """The FLOP/s of all ranks at once in matrix products."""

    precision: str


@dataclass(frozen=True, kw_only=True)
class HostCheckJob(MachineJob[HostCheckResult]):
    """The FLOP/s of each rank in matrix products, then latency and bandwidth between each two hosts."""

    precision: str


@dataclass(frozen=True, kw_only=True)
class CollectivesJob(MachineJob[CollectivesResult]):
    """Collectives by size (``workload=collectives``)."""

    options: dict[str, Any]
    """Kinds, sizes and dtype, as the workload's settings have them."""
    iterations: int
    warmup: int
    """Iterations before those that are measured."""


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
    cause_order: int = 0
    """Order in which failed hosts are considered as the cause, 0 first (``bench.launch.forkserver.outcome``)."""
