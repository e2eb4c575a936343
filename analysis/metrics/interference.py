"""Background load: the share of CPU time that other processes took during a configuration's measured steps."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isinf
from statistics import fmean

from results.launches import Launch
from results.record import Record

HEAVY_LAUNCH = 0.5
"""A single launch above it makes the background load of its configuration heavy."""
HEAVY_MEAN = 0.25
"""So does a mean over launches above it."""


def background_share(launch: Launch) -> float:
    """The largest share on any host of the launch."""
    return max(share_on_host(conditions) for conditions, _ in launch.of_hosts())


def share_on_host(seen: Mapping[str, float]) -> float:
    """Share of the CPU time that other processes, or other guests, took; infinite if others used its GPUs."""
    if seen.get("gpu_background_processes"):
        return inf
    total_s = seen.get("cpus", 0.0) * seen.get("window_s", 0.0)
    return max(seen.get("background_cpu_s", 0.0), seen.get("stolen_cpu_s", 0.0)) / total_s if total_s else 0.0


def heavy_load(record: Record) -> float:
    """The largest share of any launch where the background load was heavy; 0 where it was not."""
    shares = [background_share(launch) for launch in record.launches]
    is_heavy = bool(shares) and (max(shares) > HEAVY_LAUNCH or fmean(shares) > HEAVY_MEAN)
    return max(shares) if is_heavy else 0.0


def load_text(record: Record) -> str:
    """Heavy background load in words; empty where it was not heavy."""
    share = heavy_load(record)
    if isinf(share):
        return "other processes on the GPUs"
    return f"others took up to {100 * share:.0f} % of the CPU time" if share else ""
