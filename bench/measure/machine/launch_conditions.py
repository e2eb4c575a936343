"""The conditions of a launch, and of each of its hosts, from those of its ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.measure.machine.interference import OF_GPU, WIRE
from bench.placement import by_host
from results.conditions import SUMS_OF_HOSTS, SUMS_OF_RANKS
from results.launches import Interference

NEEDED = {
    "gpu_energy_j": (OF_GPU, "nvmlDeviceGetTotalEnergyConsumption"),
    "gpu_background_processes": (OF_GPU, "nvmlDeviceGetComputeRunningProcesses"),
    "wire_sent_bytes": (WIRE,),
}
"""Of a sum over ranks: what a rank cannot measure that lacks its part."""


def whole_sums(ranks: Sequence[Interference]) -> list[dict[str, float]]:
    """The conditions of each rank, without those to whose sum over ranks one could not add its part."""
    unread = {what for entry in ranks for what in entry.not_measured}
    partial = {name for name, causes in NEEDED.items() if not unread.isdisjoint(causes)}
    return [{name: value for name, value in entry.conditions.items() if name not in partial} for entry in ranks]


def not_measured(ranks: Sequence[Interference]) -> dict[str, str]:
    """What a launch lacks because a rank could not read it, and why; by rank where all add to it."""
    reasons: dict[str, str] = {}
    shared = {cause for causes in NEEDED.values() for cause in causes}
    for rank, entry in enumerate(ranks):
        for what, why in entry.not_measured.items():
            reasons.setdefault(what, f"rank {rank}: {why}" if what in shared else why)
    return reasons


def together(ranks: Iterable[dict[str, float]]) -> dict[str, float]:
    """The conditions of a launch from those of its ranks."""
    launch_conditions: dict[str, float] = {}
    for conditions in ranks:
        for name, value in conditions.items():
            if name not in launch_conditions:
                launch_conditions[name] = value
            elif name in SUMS_OF_RANKS:
                launch_conditions[name] += value
            else:
                launch_conditions[name] = max(launch_conditions[name], value, key=abs)
    return launch_conditions


def of_hosts(ranks: Sequence[dict[str, float]], ranks_by_host: Sequence[int]) -> list[dict[str, float]]:
    """The conditions of each host from those of all ranks, block by block; of one host without ``ranks_by_host``."""
    return [together(block) for block in by_host(ranks, ranks_by_host or [len(ranks)])]


def added_up(hosts: Iterable[dict[str, float]]) -> dict[str, float]:
    """Sums over hosts; all other conditions mean something for one host only."""
    sums: dict[str, float] = {}
    for conditions in hosts:
        for name in set(conditions) & set(SUMS_OF_HOSTS):
            sums[name] = sums.get(name, 0.0) + conditions[name]
    return sums
