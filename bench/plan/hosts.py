"""How many ranks of a launch run on each host: block by block, on as few hosts as they fit."""

from __future__ import annotations

from collections.abc import Sequence

from bench.engines.spec import EngineUnsupported
from bench.launch.launcher import Host
from results.settings import Config


def placed(config: Config, device: str, hosts: Sequence[Host]) -> list[int]:
    """Ranks of each host that the configuration uses. Raises EngineUnsupported if hosts are too few."""
    if config.backend == "fake" or (len(hosts) == 1 and config.cluster.ranks_per_host is None):
        return [config.gpus]
    capacities = [capacity(host, device, config.threads or 1) for host in hosts]
    return ranks_by_host(config.gpus, capacities, config.cluster.ranks_per_host)


def capacity(host: Host, device: str, threads: int) -> int:
    """Ranks that fit a host, each with a GPU, or with as many cores as it has threads, of its own; at least 1."""
    return max(1, host.machine.cuda_devices if device == "cuda" else int(host.cores // threads))


def ranks_by_host(ranks: int, capacities: Sequence[int], ranks_per_host: int | None = None) -> list[int]:
    """Ranks of each host that is used, in the order of hosts. ``capacities``: ranks that fit each host, at least 1.

    Ranks that fit one host stay on the first. More fill one host after the other; where all hosts are full, the rest is
    placed evenly. ``ranks_per_host`` fills each host with so many. Raises EngineUnsupported if hosts are too few.
    """
    if ranks_per_host is not None:
        needed = -(-ranks // ranks_per_host)
        if needed > len(capacities):
            raise EngineUnsupported(
                f"cluster.ranks_per_host={ranks_per_host} needs {needed} hosts for {ranks} ranks; there are "
                f"{len(capacities)}; valid: at least {-(-ranks // len(capacities))}"
            )
        return [min(ranks_per_host, ranks - first) for first in range(0, ranks, ranks_per_host)]
    if ranks > sum(capacities):
        each, more = divmod(ranks, len(capacities))
        return [each + (host < more) for host in range(min(ranks, len(capacities)))]
    counts: list[int] = []
    for capacity in capacities:
        if ranks > sum(counts):
            counts.append(min(capacity, ranks - sum(counts)))
    return counts
