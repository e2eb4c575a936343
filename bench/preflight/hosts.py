"""Measures the hosts of a cluster and the links between them, and leaves out those below a threshold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from bench.job import HostCheckJob, Job, LaunchResult
from bench.launch.cluster.facts import ClockOffset, HostFacts
from bench.launch.launcher import Host
from bench.placement import by_host
from bench.preflight import judge
from results.health import Health, HostHealth, HostLink

TIMEOUT_S = 120.0
PRECISION = "fp32"


class Cluster(Protocol):
    """What is measured: the launcher of a cluster."""

    @property
    def hosts(self) -> list[Host]: ...

    def facts(self, place: int) -> HostFacts | None: ...

    def clock_offset(self, place: int) -> ClockOffset | None: ...

    def leave_out(self, places: list[int]) -> None: ...

    def launch(self, job: Job[Any]) -> LaunchResult[Any]: ...


def check(cluster: Cluster, leave_out_below: float | None = None) -> Health:
    """Measures all hosts, and excludes those below the threshold from ``cluster``. Takes seconds.

    Raises LaunchError if a host does not join.
    """
    hosts = cluster.hosts
    entries = [_facts(cluster, place, host) for place, host in enumerate(hosts)]
    counts, device = devices(hosts)
    result = cluster.launch(job(hosts, counts, device))
    rates: list[list[float]] = [[] for _ in hosts]
    links: list[HostLink] = []
    why = ""
    if result.status == "ok":
        rates = by_host([rank.flops_per_s for rank in result.ranks], counts)
        links = [link for rank in result.ranks for link in rank.links]
    else:
        why = f"{result.status}: {result.reason}"
    health = judged(entries, rates, links, [host.environment for host in hosts], leave_out_below)
    cluster.leave_out([place for place, host in enumerate(health.hosts) if host.is_left_out])
    return dataclasses.replace(health, not_measured=why)


def _facts(cluster: Cluster, place: int, host: Host) -> HostHealth:
    facts, offset = cluster.facts(place), cluster.clock_offset(place)
    entry = HostHealth(host.name)
    if facts:
        entry = dataclasses.replace(entry, **dataclasses.asdict(facts))
    if offset:
        entry = dataclasses.replace(
            entry,
            clock_offset_s=offset.wall_s,
            monotonic_offset_s=offset.monotonic_s,
            clock_bound_s=offset.bound_s,
        )
    return entry


def devices(hosts: Sequence[Host]) -> tuple[list[int], str]:
    """Ranks of each host, one per device, and the kind of device."""
    gpus = [host.machine.cuda_devices for host in hosts]
    return (gpus, "cuda") if all(gpus) else ([1] * len(hosts), "cpu")


def job(hosts: Sequence[Host], counts: list[int], device: str) -> HostCheckJob:
    nccl = device == "cuda" and hosts[0].machine.nccl
    return HostCheckJob(
        world_size=sum(counts),
        threads=1 if device == "cuda" else max(1, int(min(host.cores for host in hosts))),
        deterministic=False,
        timeout_s=TIMEOUT_S,
        device=device,
        backend="nccl" if nccl else "gloo",
        precision=PRECISION,
        ranks_by_host=counts,
    )


def judged(
    entries: Sequence[HostHealth],
    rates: Sequence[list[float]],
    links: list[HostLink],
    environments: Sequence[Mapping[str, object] | None],
    leave_out_below: float | None,
) -> Health:
    """The measured hosts with their problems. Hosts below the threshold are left out, never all of them."""
    slow = [
        [*of_devices, *of_links]
        for of_devices, of_links in zip(judge.slow_devices(rates), judge.slow_links(len(entries), links), strict=True)
    ]
    worst = [min((one.share for one in figures), default=1.0) for figures in slow]
    out = [leave_out_below is not None and share < leave_out_below for share in worst]
    if all(out):
        out = [False] * len(out)
    different = judge.differences(environments)
    return Health(
        [
            dataclasses.replace(
                entry,
                flops_per_s=rates[place],
                problems=[one.words for one in slow[place]] + different[place] + judge.spoils(entry),
                is_left_out=out[place],
            )
            for place, entry in enumerate(entries)
        ],
        links,
    )
