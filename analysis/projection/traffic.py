"""The collectives of a step at a world size that was not measured, from those at sizes that were.

Two rules cover DDP and ZeRO. A collective over all ranks keeps its array and its count at every world size, but for
padding. An exchange by sends has N-1 messages of 1/N of the array. A kind that follows neither is not projected.
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


def collectives_at(measured: Mapping[int, Sequence[Collective]], ranks: int) -> list[Collective]:
    """The collectives of one step among ``ranks``.

    ``measured`` maps a world size of two or more to the collectives of a step at that size. Raises NotProjected where
    they follow no rule.
    """
    if ranks in measured:
        return list(measured[ranks])
    largest = max(measured)
    kinds = dict.fromkeys((one.kind, one.dtype) for step in measured.values() for one in step)
    for kind, dtype in kinds:
        _check_rule(kind, {size: _of(step, kind, dtype) for size, step in measured.items()})
    groups = {size: {one.group_size for one in step} for size, step in measured.items()}
    return [_moved(one, largest, ranks, groups) for one in measured[largest]]


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


def _moved(one: Collective, measured: int, ranks: int, groups: Mapping[int, set[int]]) -> Collective:
    if one.kind in EXCHANGE:
        count = one.count * (ranks - 1) // (measured - 1)
        return replace(one, elements=-(-one.elements * measured // ranks), count=count, group_size=ranks)
    if one.group_size == measured:
        return replace(one, group_size=ranks)
    if all(one.group_size in sizes for sizes in groups.values()):  # a shard group of hybrid sharding
        return one
    return replace(one, group_size=max(1, one.group_size * ranks // measured))  # its replicas
