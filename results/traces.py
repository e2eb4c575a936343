"""Trace files of a configuration, and its memory over one step; both with measure.trace=true."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

FOLDER = "traces"
"""Where the files are, in the sweep's folder."""

TraceKind = Literal["steps", "memory", "snapshot"]
"""- ``steps``: operators, kernels and collectives of the profiled steps, a Chrome trace
- ``memory``: bytes by use over one step, counters in the same format
- ``snapshot``: CUDA's caching allocator, for pytorch.org/memory_viz"""

KINDS: tuple[TraceKind, ...] = get_args(TraceKind)


@dataclass(frozen=True)
class TraceFile:
    """One file of one rank."""

    rank: int
    kind: TraceKind
    name: str
    """Its path in the sweep's folder."""
    size_bytes: int


@dataclass(frozen=True)
class PhaseStart:
    """The moment at which a step enters a phase."""

    phase: str
    """``forward`` (of each micro-batch), ``backward`` or ``update``."""
    at_s: float


@dataclass(frozen=True)
class MemoryTimeline:
    """Allocated bytes of one rank over one step, by use. Times are from the begin of the step, under the profiler."""

    rank: int
    duration_s: float
    phases: list[PhaseStart]
    times_s: list[float]
    """The begin of each short interval."""
    bytes_by_kind: dict[str, list[int]]
    """By use, as in ``RankMemory.peak_by_kind``: at the moment of each interval with the most bytes in all."""

    @property
    def peak_bytes(self) -> int:
        return max((sum(sizes) for sizes in zip(*self.bytes_by_kind.values(), strict=True)), default=0)


@dataclass(frozen=True)
class RankTraces:
    """What one launch wrote for one rank."""

    files: list[TraceFile] = field(default_factory=list)
    not_written: dict[str, str] = field(default_factory=dict)
    """By kind, why there is no file."""
    timeline: MemoryTimeline | None = None


@dataclass(frozen=True)
class Traces:
    """The files of all ranks."""

    files: list[TraceFile] = field(default_factory=list)
    not_written: dict[str, str] = field(default_factory=dict)
    """By kind, why at least one rank has no file."""
    timeline: MemoryTimeline | None = None
    """Of the rank with the largest peak."""

    def joined(self, ranks: list[RankTraces]) -> Traces:
        """These and what another launch wrote, which replaces files and reasons of the same kinds."""
        files = [file for rank in ranks for file in rank.files]
        reasons = {kind: why for rank in reversed(ranks) for kind, why in rank.not_written.items()}
        replaced = {file.kind for file in files} | set(reasons)
        kept = [file for file in self.files if file.kind not in replaced]
        left = {kind: why for kind, why in self.not_written.items() if kind not in replaced}
        timelines = [rank.timeline for rank in ranks if rank.timeline]
        fullest = max(timelines, key=lambda timeline: timeline.peak_bytes, default=self.timeline)
        return Traces([*kept, *files], left | reasons, fullest)
