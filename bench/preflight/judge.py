"""Names the hosts that are slower than the others, or differ from them. Pure: from numbers to words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.preflight.machine import LEAST_DISK_BYTES, LEAST_SHARED_BYTES
from results.health import HostHealth, HostLink
from results.identity import flatten

SLOW = 0.7
"""A host is named whose rate is below this share of the median of the other hosts."""
LATE_S = 50e-6
"""A latency is named that is as much above the median of the other hosts, and more than twice that median."""
LATE = 2.0
MAX_CLOCK_OFFSET_S = 0.1
FEWEST_FOR_LINKS = 3
"""Hosts; of two, a slow link does not say whose it is."""
COMPARED = (
    *("python", "packages", "cuda", "cudnn", "nccl", "glibc", "kernel"),
    *("cpu_model", "cpu_capability", "physical_cores", "gpus"),
)
"""Entries of the environment that are equal on like hosts."""


@dataclass(frozen=True)
class Slowness:
    """One figure of a host that is worse than that of the others."""

    words: str
    share: float
    """Of the others' rate: 0.5 is half as fast."""


def slow_devices(rates: Sequence[Sequence[float]]) -> list[list[Slowness]]:
    """By host, the devices whose peak is below that of all others. ``rates``: FLOP/s of each device of each host."""
    everything = [(host, device, rate) for host, devices in enumerate(rates) for device, rate in enumerate(devices)]
    slow: list[list[Slowness]] = [[] for _ in rates]
    for host, device, rate in everything:
        others = [other for *place, other in everything if place != [host, device]]
        usual = median(others) if others else 0.0
        if rate < SLOW * usual:
            which = f"device {device}: " if len(rates[host]) > 1 else ""
            words = f"{which}matrix products at {flops(rate)}, median of the others {flops(usual)}"
            slow[host].append(Slowness(words, rate / usual))
    return slow


def slow_links(hosts: int, links: Sequence[HostLink]) -> list[list[Slowness]]:
    """By host, what is slow on all of its links: a host that is well has at least one good link to another such."""
    slow: list[list[Slowness]] = [[] for _ in range(hosts)]
    if hosts < FEWEST_FOR_LINKS or not links:
        return slow
    sends, receives, latency = (dict.fromkeys(range(hosts), 0.0) for _ in range(3))
    for link in links:
        sends[link.source] = max(sends[link.source], link.bytes_per_s)
        receives[link.target] = max(receives[link.target], link.bytes_per_s)
        latency[link.source] = min(latency[link.source] or link.latency_s, link.latency_s)
    for host in range(hosts):
        for verb, rates in (("sends", sends), ("receives", receives)):
            others = median(rate for other, rate in rates.items() if other != host)
            if rates[host] < SLOW * others:
                words = f"{verb} at most {bits(rates[host])}, median of the others {bits(others)}"
                slow[host].append(Slowness(words, rates[host] / others))
        others = median(value for other, value in latency.items() if other != host)
        if latency[host] > max(LATE * others, others + LATE_S):
            words = f"latency of at least {micro(latency[host])}, median of the others {micro(others)}"
            slow[host].append(Slowness(words, others / latency[host]))
    return slow


def differences(environments: Sequence[Mapping[str, object] | None]) -> list[list[str]]:
    """By host, how it differs from most hosts; where as many have one value as another, from the first host."""
    named: list[list[str]] = [[] for _ in environments]
    compared = [flatten({name: (one or {}).get(name) for name in COMPARED}) for one in environments]
    for name in dict.fromkeys(name for one in compared for name in one):
        values = [str(one.get(name, "none")) for one in compared]
        usual = Counter(values).most_common(1)[0][0]  # the first of those that are as common
        for host, value in enumerate(values):
            if value != usual:
                named[host].append(f"{name.removeprefix('packages.')} is {value}, on the others {usual}")
    return named


def spoils(host: HostHealth) -> list[str]:
    """What of a host's own numbers may spoil a sweep."""
    lines = [f"in use by another process: {gpu}" for gpu in host.busy_gpus]
    for what, free, least in (
        ("disk", host.disk_free_bytes, LEAST_DISK_BYTES),
        ("/dev/shm", host.shared_memory_free_bytes, LEAST_SHARED_BYTES),
    ):
        if free is not None and free < least:
            lines.append(f"{what} has {free / 2**30:.2g} GiB free; at least {least / 2**30:.2g} GiB are needed")
    if host.clock_offset_s is None:
        lines.append("did not answer in time")
    elif abs(host.clock_offset_s) > MAX_CLOCK_OFFSET_S:
        side = "ahead of" if host.clock_offset_s > 0 else "behind"
        lines.append(f"its clock is {abs(host.clock_offset_s):.3g} s {side} the coordinator's; synchronize it (NTP)")
    return lines


def flops(rate: float) -> str:
    return f"{rate / 1e12:.3g} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.3g} GFLOP/s"


def bits(bytes_per_s: float) -> str:
    rate = 8 * bytes_per_s
    return f"{rate / 1e9:.3g} Gbit/s" if rate >= 1e9 else f"{rate / 1e6:.3g} Mbit/s"


def micro(seconds: float) -> str:
    return f"{seconds * 1e6:.3g} µs"
