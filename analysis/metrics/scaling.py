"""Scaling efficiency: what a rank delivers in a larger world against what it delivers in the smallest.

E(N) = (throughput(N)/N) / (throughput(N0)/N0), with N0 the smallest world size of the cell's group: cells
that are alike in every other setting and in hardware. The definition is the same for weak scaling (work grows
with N) and strong scaling (work is shared out), because throughput counts global units.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from math import nan

from analysis.metrics import hosts, time
from analysis.statistics import medians
from analysis.statistics.medians import Interval
from results.identity import hardware, identity, settings_of
from results.launches import shared_rounds
from results.record import Record, world_size
from results.verdicts import UNTRAINED


@dataclass(frozen=True)
class Efficiency:
    """Scaling efficiency of one cell; a fraction, 1 is ideal."""

    interval: Interval
    base: Record
    """The cell that it is measured against."""
    cap: float
    """The most that shared cores or GPUs allow; NaN where the record does not describe the machine well enough."""

    @property
    def baseline_gpus(self) -> int:
        """N0, the world size that it is measured against."""
        return world_size(self.base)


def is_ranked(record: Record) -> bool:
    """Only cells that ended well and were timed are compared with others; a failed parity never is, nor is a simulated
    cell, whose time is compute only, nor one whose training diverged, since NaN takes other time than numbers, nor one
    whose steps updated nothing."""
    timed = record.status == "ok" and any(launch.ranks for launch in record.launches) and record.model is not None
    return timed and not record.resolved.get("simulated") and UNTRAINED.keys().isdisjoint(record.verdicts)


def is_oversubscribed(record: Record) -> bool:
    return "oversubscribed" in record.verdicts


def efficiencies(records: list[Record]) -> list[Efficiency | None]:
    """One entry per record; None for a cell that is not ranked."""
    return [
        None if base is None else efficiency(record, base)
        for record, base in zip(records, baselines(records), strict=True)
    ]


def baselines(records: list[Record]) -> list[Record | None]:
    """The baseline of each record; None for a cell that is not ranked."""
    groups: dict[object, dict[str, Record]] = defaultdict(dict)
    keys = [(identity(settings_of(record), without=["gpus"]), hardware(record)) for record in records]
    for key, record in zip(keys, records, strict=True):
        if is_ranked(record):
            smallest = groups[key].setdefault(record.sweep_id, record)
            if world_size(record) < world_size(smallest):
                groups[key][record.sweep_id] = record
    bases = {key: min(group.values(), key=world_size) for key, group in groups.items()}
    return [
        baseline(groups[key][record.sweep_id], bases[key]) if is_ranked(record) else None
        for key, record in zip(keys, records, strict=True)
    ]


def baseline(own: Record, smallest: Record) -> Record:
    """The smallest world of a group, from the cell's own sweep where that has one, so that rounds can be paired."""
    return own if world_size(own) == world_size(smallest) else smallest


def efficiency(record: Record, base: Record) -> Efficiency:
    """Efficiency of a cell against its baseline: the median, over the rounds that both ran, of the round's efficiency.

    What slows a whole round cancels within it. Cells of different sweeps share no rounds, and one of a resumed sweep
    may share but one with a cell that it then got: theirs is the ratio of the medians, each resampled apart.
    """
    if world_size(record) == world_size(base):
        return Efficiency(Interval(1.0, 1.0, 1.0, 1.0, len(record.launches)), base, 1.0)
    return Efficiency(relative(record, base), base, cap(record, base))


def relative(record: Record, base: Record) -> Interval:
    """Throughput per rank of a configuration over that of another."""
    share = world_size(base) / world_size(record)
    if len(shared := by_round(record, base)) > 1:
        return medians.median_interval(list(shared.values()))
    above, below = ([time.throughput_per_s(side, launch) for launch in side.launches] for side in (record, base))
    ratio = medians.ratio_interval(above, below, paired=False)
    return replace(ratio, value=ratio.value * share, low=ratio.low * share, high=ratio.high * share)


def by_round(record: Record, base: Record) -> dict[int, float]:
    """Efficiency in each round that both cells ran; empty for cells of different sweeps."""
    if record.sweep_id != base.sweep_id:
        return {}
    share = world_size(base) / world_size(record)
    return {
        own.round: share * time.throughput_per_s(record, own) / time.throughput_per_s(base, other)
        for own, other in shared_rounds(record.launches, base.launches)
    }


def serial_fraction(efficiency: Interval, growth: float) -> Interval:
    """The serial fraction of Karp and Flatt (1990) of ``growth`` times as many ranks as the baseline.

    With the speedup S = growth·E it is (1/S - 1/growth) / (1 - 1/growth) = (1/E - 1)/(growth - 1): the share of the
    baseline's time that would not have been shared out, were that all that is lost. It falls as E rises, so the
    interval is that of E, its ends exchanged. Below 0 the speedup was more than ideal.
    """
    value, low, high = ((1 / share - 1) / (growth - 1) for share in (efficiency.value, efficiency.high, efficiency.low))
    return replace(efficiency, value=value, low=low, high=high)


def cap(record: Record, base: Record) -> float:
    """The most that efficiency can be if a core (or GPU) does the same work whichever rank it works for.

    A cell has N·threads cores at work, or N GPUs, but no more than there are; per rank that is capacity/N, and
    the cap is its ratio to the baseline's, never above 1. On a CPU whose baseline fits: cores/(N·threads).
    """
    ours, theirs = capacity(record), capacity(base)
    return min(1.0, (ours / world_size(record)) / (theirs / world_size(base))) if ours and theirs else nan


def capacity(record: Record) -> float | None:
    """Cores or GPUs that the cell's ranks keep busy; None where the record does not say."""
    threads = 1 if record.resolved.get("device") == "cuda" else record.resolved.get("threads")
    if not isinstance(threads, int):
        return None
    wanted, there = world_size(record) * threads, devices(record)
    if not is_oversubscribed(record):
        return float(wanted)
    return None if there is None else float(min(wanted, there))


def devices(record: Record) -> float | None:
    """Cores, or GPUs, of the hosts that the cell ran on."""
    on_gpus = record.resolved.get("device") == "cuda"
    counts = [
        len(host.get("gpus") or []) if on_gpus else host.get("cores")
        for host in (hosts.described(record) if on_gpus else hosts.used(record))
    ]
    positive = [count for count in counts if isinstance(count, int | float) and count]
    return sum(positive) if len(positive) == len(counts) else None
