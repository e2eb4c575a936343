"""Which hosts a configuration ran on, and what each of them saw of its launches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from statistics import fmean, median
from typing import Any

from analysis.metrics.interference import share_on_host
from results.record import Record


def used(record: Record) -> list[Mapping[str, Any]]:
    """The hosts that its ranks ran on; of one, the cores that it had."""
    entries: Any = record.resolved.get("hosts") or [{"cores": record.resolved.get("cores")}]
    return list(entries)


def described(record: Record) -> list[Mapping[str, Any]]:
    """The same hosts as the environment describes them."""
    of_cluster = record.environment.get("hosts")
    return [*of_cluster[: len(used(record))]] if of_cluster else [record.environment]


def count(record: Record) -> int:
    """Hosts that its ranks ran on."""
    return len(used(record))


def names(records: Sequence[Record]) -> list[str]:
    """Hosts of a cluster by name, in the order in which ranks fill them; none of one machine."""
    listed = [host for record in records for host in record.environment.get("hosts") or []]
    return list(dict.fromkeys(str(host.get("name")) for host in listed if isinstance(host, Mapping)))


@dataclass(frozen=True)
class Seen:
    """What one host saw of the measured steps that ran on it; shares of its CPU time."""

    launches: int
    mean_share: float
    """Of background load, mean over launches; NaN without launches."""
    largest_share: float
    throttled_s: float
    """CPU seconds that a quota took away, over all launches."""


def seen(records: Sequence[Record], name: str) -> Seen:
    """What the host ``name`` saw of all launches that ran on it."""
    conditions = []
    for record in records:
        own = [str(host.get("name")) for host in used(record)]
        own = own if count(record) > 1 else names([record])[:1]
        for launch in record.launches:
            conditions += [one for host, (one, _) in zip(own, launch.of_hosts(), strict=False) if host == name and one]
    shares = [share_on_host(one) for one in conditions]
    return Seen(
        len(conditions),
        fmean(shares) if shares else nan,
        max(shares, default=nan),
        sum(one.get("throttled_s", 0.0) for one in conditions),
    )


def sent_by_host(record: Record) -> list[float]:
    """Bytes per step that each host sent at its interface, median over launches; empty where not counted."""
    by_launch = []
    for launch in record.launches:
        steps = max((len(rank.losses) for rank in launch.ranks), default=0)
        sent = [host.get("wire_sent_bytes") for host in launch.conditions_by_host]
        if steps and sent and None not in sent:
            by_launch.append([value / steps for value in sent if value is not None])
    return [median(values) for values in zip(*by_launch, strict=True)]
