"""The result of a launch from the results of its slices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bench.job import LaunchResult
from results.record import RankEnd

HOST_LOST = -1
"""``cause_order`` of a host that ended or does not answer."""


def merged(results: Mapping[int, LaunchResult[Any]], names: list[str]) -> LaunchResult[Any]:
    """``results`` by index of host, each that took part; ``names`` of hosts by index.

    A launch is ok if all its slices are. Else it ended as the slice that most likely caused it, whose host is named.
    """
    hosts = sorted(results)
    total_s = max(results[host].total_s for host in hosts)
    if all(results[host].status == "ok" for host in hosts):
        return LaunchResult(
            "ok",
            ranks=[rank for host in hosts for rank in results[host].ranks],
            servers=[server for host in hosts for server in results[host].servers],
            total_s=total_s,
            start_method=results[hosts[0]].start_method,
        )
    bad = [host for host in hosts if results[host].status != "ok"]
    worst = min(bad, key=lambda host: (results[host].cause_order, host))
    result = results[worst]
    reason = f"{names[worst]}: {result.reason}"
    if result.status == "timeout" and result.cause_order != 0:  # no stuck rank is named
        reason = "; ".join(f"{names[host]}: {results[host].reason}" for host in bad)
    if result.status in ("unsupported", "unavailable"):
        reason = result.reason  # of the settings, not of the host
    ends = [on_host(end, names[host]) for host in hosts for end in results[host].ends]
    return dataclasses.replace(
        result, reason=reason, ranks=[], servers=[], ends=sorted(ends, key=lambda end: end.rank), total_s=total_s
    )


def on_host(end: RankEnd, name: str) -> RankEnd:
    return dataclasses.replace(end, ending=f"on {name}: {end.ending}")
