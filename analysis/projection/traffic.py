"""The collectives of a step at a world size that was not measured, from those at sizes that were.

Two rules cover DDP and ZeRO. A collective over all ranks keeps its array and its count at every world size, but for
padding. An exchange by sends has N-1 messages of 1/N of the array. A kind that follows neither is not projected.

With hybrid sharding the shard groups keep their size. The replicas, which all-reduce in smaller groups, grow in number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from results.launches import Collective

PADDING = 0.05
"""Padding to a multiple of the world size may change the elements of a step by this share."""

EXCHANGE = ("send", "recv")


class NotProjected(ValueError):
    """A configuration has no projection; the message has the reason and what to do."""


def collectives_at(
    measured: Mapping[int, Sequence[Collective]], ranks: int, shard_size: int | None = None
) -> list[Collective]:
    """The collectives of one step among ``ranks``.

    ``measured`` maps a world size of two or more to the collectives of a step at that size; with hybrid sharding one
    of at most ``shard_size`` says nothing of the replicas. Raises NotProjected where they follow no rule.
    """
    if ranks in measured:
        return list(measured[ranks])
    if shard_size:
        measured = {size: step for size, step in measured.items() if size > shard_size}
        if not measured:
            raise NotProjected(f"shard_size={shard_size}: no larger world size was measured; replicas need one")
    largest = max(measured)
    kinds = dict.fromkeys((one.kind, one.dtype) for step in measured.values() for one in step)
    for kind, dtype in kinds:
        _check_rule(kind, {size: _of(step, kind, dtype) for size, step in measured.items()})
    return [_moved(one, largest, ranks) for one in measured[largest]]


def _of(step: Sequence[Collective], kind: str, dtype: str) -> list[Collective]:
    return [one for one in step if one.kind == kind and one.dtype == dtype]


def _check_rule(kind: str, by_size: Mapping[int, Sequence[Collective]]) -> None:
    exchange = kind in EXCHANGE
    counts = {sum(one.count for one in step) / (size - 1 if exchange else 1) for size, step in by_size.items()}
    elements = [
        sum(one.count * one.elements for one in step) * (size / (size - 1) if exchange else 1)
        for size, step in by_size.items()
    ]
    if len(counts) > 1 or max(elements) > (1 + PADDING) * min(elements):
        sizes = ", ".join(map(str, sorted(by_size)))
        raise NotProjected(f"its {kind} calls change between world sizes {sizes} by no rule of DDP or ZeRO")


def _moved(one: Collective, measured: int, ranks: int) -> Collective:
    if one.kind in EXCHANGE:
        count = one.count * (ranks - 1) // (measured - 1)
        return replace(one, elements=-(-one.elements * measured // ranks), count=count, group_size=ranks)
    if one.group_size == measured:
        return replace(one, group_size=ranks)
    if one.kind == "all_reduce":  # among the replicas of hybrid sharding
        return replace(one, group_size=max(1, one.group_size * ranks // measured))
    return one  # within a shard group
