"""What the ranks of a launch return to the coordinator, by the purpose of its launch.

``bench.messages`` turns them into JSON and back. Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from results.attribution import StepParts
from results.health import HostLink
from results.launches import Ceiling, Collective, CollectiveTimes, Interference, RankSamples
from results.memory import RankMemory
from results.model import Model
from results.parity import Noise, Parity
from results.resolved import EngineDescription
from results.traces import RankTraces
from results.updates import Updates


@dataclass(frozen=True, kw_only=True)
class RankResult:
    """What every rank returns, whatever its launch is for."""

    changes: list[str] = field(default_factory=list)
    """Global state that the workload's code changed in this process (``bench.worker.global_state``)."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Duration of each phase of the rank's life."""


@dataclass(frozen=True, kw_only=True)
class LoadResult(RankResult):
    """The workload can be loaded."""

    unit: str
    """What a sample is counted in."""
    units_per_sample: int
    wrote_files: bool = False
    """Whether it wrote its samples as files."""


@dataclass(frozen=True, kw_only=True)
class ReferenceResult(RankResult):
    """The model, as the single process counted it."""

    model: Model


@dataclass(frozen=True, kw_only=True)
class NoiseResult(RankResult):
    """The noise of the single process."""

    noise: Noise


@dataclass(frozen=True, kw_only=True)
class CheckResult(RankResult):
    """The untimed measurements of one rank."""

    description: EngineDescription
    """The engine's description of its settings as they took effect."""
    parity: Parity | None = None
    """On rank 0; None on all others, and where nothing was compared."""
    memory: RankMemory | None = None
    collectives: list[Collective] | None = None
    updates: Updates | None = None
    traces: RankTraces | None = None


@dataclass(frozen=True, kw_only=True)
class CeilingResult(RankResult):
    """The peak FLOP/s of all ranks at once."""

    ceiling: Ceiling
    interference: Interference


@dataclass(frozen=True, kw_only=True)
class HostCheckResult(RankResult):
    """The peak FLOP/s of this rank's device, and the links on which it sent to other hosts."""

    flops_per_s: float
    links: list[HostLink]


@dataclass(frozen=True, kw_only=True)
class TimingResult(RankResult):
    """The measured steps of one rank."""

    samples: RankSamples
    interference: Interference


@dataclass(frozen=True, kw_only=True)
class ProfileResult(RankResult):
    """The parts of each profiled step of one rank."""

    parts: list[StepParts]
    straggler_known: bool
    """Whether waiting for other ranks can be separated from transfer in every step."""
    updates: Updates
    traces: RankTraces | None = None


@dataclass(frozen=True, kw_only=True)
class CollectivesResult(RankResult):
    """Collectives by size; the times are the same on every rank."""

    collective_times: list[CollectiveTimes]
    interference: Interference
