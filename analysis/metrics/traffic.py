"""Bytes sent in a step: counted collectives at their bandwidth optimum, and bytes at the network interface."""

from __future__ import annotations

from math import nan
from statistics import median

from results.launches import Collective
from results.record import Record


def ledgers(record: Record) -> list[list[Collective]]:
    """The collectives of each rank in a step; one list where all ranks' are alike, or where they were not counted."""
    return record.collectives_by_rank or [record.collectives or []]


def sent_bytes(record: Record) -> float | None:
    """Bytes that a rank sends in a step, mean over ranks; None unless all of it was counted.

    Of ``local_steps`` k, all k were counted together.
    """
    if record.collectives is None or record.resolved.get("uncounted"):
        return None
    total, by_rank = 0.0, ledgers(record)
    for line in (line for ledger in by_rank for line in ledger):
        sent = line.sent_bytes
        if sent is None:
            return None
        total += sent
    return total / len(by_rank) / (record.config.get("local_steps") or 1)


def wire_bytes(record: Record) -> float:
    """Bytes that all processes sent in a step over the ranks, by the interfaces' counters; NaN where not counted.

    Median over launches, since whatever else used an interface is counted too.
    """
    counted = [(launch.condition_per_step("wire_sent_bytes"), len(launch.ranks)) for launch in record.launches]
    rank_bytes = [sent / ranks for sent, ranks in counted if sent is not None and ranks > 1]
    return median(rank_bytes) if rank_bytes else nan
