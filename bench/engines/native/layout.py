"""The place of every element: parameters in buckets, buckets in shards. Only arithmetic, no tensors.

A bucket has consecutive parameters. Each starts at a multiple of ``ALIGN_BYTES``, so that kernels take the same path
for a parameter at every place, and results do not depend on the bucket size. The bucket is padded to N aligned shards.
Rank r owns elements [r·S, (r+1)·S), S the size of a shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

ALIGN_BYTES = 64


@dataclass(frozen=True)
class Slot:
    """A parameter's place in its bucket, in elements."""

    parameter: int
    """Position in the list of parameters that was laid out."""
    offset: int
    count: int

    @property
    def elements(self) -> slice:
        """The elements of the bucket that are the parameter's."""
        return slice(self.offset, self.offset + self.count)


@dataclass(frozen=True)
class Layout:
    """One bucket: its slots and its shards."""

    slots: tuple[Slot, ...]
    size: int
    """Elements with padding; a multiple of the world size."""
    world_size: int

    @property
    def shard_size(self) -> int:
        return self.size // self.world_size

    @property
    def gaps(self) -> list[slice]:
        """The padding: elements of no parameter."""
        starts = [*(slot.offset for slot in self.slots), self.size]
        ends = [0, *(slot.offset + slot.count for slot in self.slots)]
        return [slice(end, start) for end, start in zip(ends, starts, strict=True) if end < start]

    def shard(self, rank: int) -> slice:
        """The elements that ``rank`` owns."""
        return slice(rank * self.shard_size, (rank + 1) * self.shard_size)


def lay_out(
    counts: Sequence[int],
    order: Sequence[int],
    cap_bytes: float | None,
    world_size: int,
    element_bytes: int,
    *,
    short_end: bool = False,
) -> list[Layout]:
    """Assigns parameters of ``counts`` elements, in ``order``, to buckets of at most ``cap_bytes`` (None: one bucket).

    A parameter is never cut: one that is larger than the cap has its own bucket. ``short_end``: no computation is left
    that could overlap with the reduction of the last bucket. So if it fills more than half of the cap, it is cut once
    more, and at most a quarter of the cap comes last.
    """
    align = max(1, ALIGN_BYTES // element_bytes)
    cap = float("inf") if cap_bytes is None else cap_bytes / element_bytes
    buckets: list[list[Slot]] = []
    end = 0
    for parameter in order:
        offset, count = round_up(end, align), counts[parameter]
        if not buckets or offset + count > cap:
            buckets.append([])
            offset = 0
        buckets[-1].append(Slot(parameter, offset, count))
        end = offset + count
    if short_end and end > cap / 2:
        buckets[-1:] = _cut_end(buckets[-1], round_up(end, align), cap / 4)
    return [_close(slots, world_size, align) for slots in buckets]


def _cut_end(slots: list[Slot], end: int, max_elements: float) -> list[list[Slot]]:
    """Cuts ``slots`` at the first place after which at most ``max_elements`` remain; uncut if there is none."""
    for at, first in enumerate(slots):
        if at and end - first.offset <= max_elements:
            return [slots[:at], [replace(slot, offset=slot.offset - first.offset) for slot in slots[at:]]]
    return [slots]


def _close(slots: list[Slot], world_size: int, align: int) -> Layout:
    used = slots[-1].offset + slots[-1].count
    return Layout(tuple(slots), world_size * round_up(-(-used // world_size), align), world_size)


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
