"""What a host reports of itself for a health check: free disk and shared memory, GPUs in use, and its clocks."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from bench.measure.machine import nvml

SHARED_MEMORY = Path("/dev/shm")
EXCHANGES = 16
"""Readings of a host's clocks; the one with the shortest round trip counts."""


@dataclass(frozen=True)
class HostFacts:
    """What a host reports of itself."""

    disk_free_bytes: int
    shared_memory_free_bytes: int
    busy_gpus: list[str]


@dataclass(frozen=True)
class ClockReading:
    """The clocks of a host at one moment."""

    wall_s: float
    monotonic_s: float


@dataclass(frozen=True)
class ClockOffset:
    """The clocks of a host minus those of the coordinator, in seconds."""

    wall_s: float
    monotonic_s: float
    bound_s: float
    """Half of the round trip: both offsets are exact to within it."""


def collect(folder: Path) -> HostFacts:
    """Of this host, whose server keeps its files in ``folder``."""
    busy = [
        f"GPU {gpu.index} ({gpu.busy_percent or 0:.0f} % busy, {(gpu.used_bytes or 0) / 2**20:.0f} MiB used)"
        for gpu in nvml.visible(nvml.states())
        if gpu.in_use
    ]
    return HostFacts(shutil.disk_usage(folder).free, shutil.disk_usage(SHARED_MEMORY).free, busy)


def clocks() -> ClockReading:
    return ClockReading(time.time(), time.monotonic())


def offset(before: ClockReading, there: ClockReading, after: ClockReading) -> ClockOffset:
    """Of a reading that was asked for at ``before`` and had arrived by ``after``, as NTP has it (RFC 5905, 8)."""
    return ClockOffset(
        there.wall_s - (before.wall_s + after.wall_s) / 2,
        there.monotonic_s - (before.monotonic_s + after.monotonic_s) / 2,
        (after.monotonic_s - before.monotonic_s) / 2,
    )
