"""Scaling efficiency within a host and across hosts.

With c ranks on one host and N on several, E(N) = E(c) · E_across(N): E_across is throughput per rank of the N over that
of the c. The c are as many as one host ran of the same setting. Where ``cluster.ranks_per_host`` spreads ranks, c may
be N itself: E_across then is what crossing hosts costs at the same world size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.metrics import hosts, scaling
from analysis.statistics.medians import Interval
from results.identity import hardware, identity, settings_of
from results.record import Record, world_size

SPREADING = ("gpus", "cluster.ranks_per_host", "shard_size")
"""Settings that may differ between a configuration on several hosts and its partner on one."""


@dataclass(frozen=True)
class Across:
    """A configuration on several hosts compared with its partner on one host."""

    interval: Interval
    partner: Record
    """The configuration on one host with the most ranks, at most as many."""


def across(records: Sequence[Record]) -> list[Across | None]:
    """One entry per record; None for those on one host, not ranked, or without a partner."""
    keys = [(identity(settings_of(record), without=SPREADING), hardware(record)) for record in records]
    partners: dict[object, list[Record]] = {}
    for key, record in zip(keys, records, strict=True):
        if scaling.is_ranked(record) and hosts.count(record) == 1:
            partners.setdefault(key, []).append(record)
    return [_across(record, partners.get(key, [])) for key, record in zip(keys, records, strict=True)]


def _across(record: Record, partners: Sequence[Record]) -> Across | None:
    if hosts.count(record) == 1 or not scaling.is_ranked(record):
        return None
    no_larger = [partner for partner in partners if world_size(partner) <= world_size(record)]
    if not no_larger:
        return None
    partner = max(no_larger, key=lambda one: (world_size(one), one.sweep_id == record.sweep_id))
    return Across(scaling.relative(record, partner), partner)
