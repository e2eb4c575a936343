"""The layout: every element of every parameter lies in one place and is owned by one rank."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engines.native.layout import ALIGN_BYTES, Layout, lay_out

COUNTS = st.lists(st.integers(0, 5000), min_size=1, max_size=12)
CAPS = st.one_of(st.none(), st.floats(1, 30_000))


def layouts(counts: list[int], cap: float | None, world_size: int, element_bytes: int) -> list[Layout]:
    return lay_out(counts, range(len(counts)), cap, world_size, element_bytes)


@given(COUNTS, CAPS, st.integers(1, 9), st.sampled_from([2, 4, 8]))
def test_every_element_is_owned_exactly_once(
    counts: list[int], cap: float | None, world_size: int, element_bytes: int
) -> None:
    cut = layouts(counts, cap, world_size, element_bytes)
    assert [slot.parameter for layout in cut for slot in layout.slots] == list(range(len(counts)))
    for layout in cut:
        owners = [0] * layout.size
        for rank in range(world_size):
            for element in range(*layout.shard(rank).indices(layout.size)):
                owners[element] += 1
        assert owners == [1] * layout.size
        used = [0] * layout.size
        for slot in layout.slots:
            assert slot.count == counts[slot.parameter]
            for element in range(slot.offset, slot.offset + slot.count):
                used[element] += 1
        for gap in layout.gaps:
            for element in range(gap.start, gap.stop):
                used[element] += 1
        assert used == [1] * layout.size


@given(COUNTS, CAPS, st.integers(1, 9), st.sampled_from([2, 4, 8]))
def test_a_bucket_keeps_within_its_cap_unless_it_is_one_parameter(
    counts: list[int], cap: float | None, world_size: int, element_bytes: int
) -> None:
    for layout in layouts(counts, cap, world_size, element_bytes):
        last = layout.slots[-1]
        if cap is not None and len(layout.slots) > 1:
            assert (last.offset + last.count) * element_bytes <= cap
        padding = layout.size - sum(slot.count for slot in layout.slots)
        assert padding * element_bytes < ALIGN_BYTES * (len(layout.slots) + 2 * world_size)


@given(COUNTS, st.integers(1, 9), st.sampled_from([2, 4, 8]))
def test_shards_and_parameters_are_aligned(counts: list[int], world_size: int, element_bytes: int) -> None:
    for layout in layouts(counts, None, world_size, element_bytes):
        assert layout.shard_size * element_bytes % ALIGN_BYTES == 0
        assert all(slot.offset * element_bytes % ALIGN_BYTES == 0 for slot in layout.slots)


@given(COUNTS, st.floats(1, 30_000), st.integers(1, 9), st.sampled_from([2, 4, 8]))
def test_a_short_end_cuts_the_last_bucket_and_no_other(
    counts: list[int], cap: float, world_size: int, element_bytes: int
) -> None:
    plain = layouts(counts, cap, world_size, element_bytes)
    cut = lay_out(counts, range(len(counts)), cap, world_size, element_bytes, short_end=True)
    assert [slot.parameter for layout in cut for slot in layout.slots] == list(range(len(counts)))
    assert cut[: len(plain) - 1] == plain[:-1]
    if taken(plain[-1]) * element_bytes <= cap / 2:
        assert cut == plain
    elif len(cut) == len(plain):  # its last parameter alone is too large for an end
        assert cut == plain
        assert len(plain[-1].slots) == 1 or padded(plain[-1].slots[-1].count, element_bytes) > cap / 4
    else:
        first, last = cut[len(plain) - 1 :]
        ends = [padded(slot.count, element_bytes) for slot in last.slots]
        assert sum(ends) <= cap / 4
        assert len(first.slots) == 1 or sum(ends) + padded(first.slots[-1].count, element_bytes) > cap / 4


def taken(layout: Layout) -> int:
    """Elements, without the padding at the end."""
    return layout.slots[-1].offset + layout.slots[-1].count


def padded(count: int, element_bytes: int) -> int:
    """Bytes of a parameter with the padding after it."""
    return -(-count * element_bytes // ALIGN_BYTES) * ALIGN_BYTES


@pytest.mark.parametrize(
    ("counts", "buckets"),
    [
        ([8] * 6, [[8, 8, 8, 8], [8, 8]]),  # half full: left
        ([8] * 7, [[8, 8, 8, 8], [8, 8], [8]]),
        ([8] * 3, [[8, 8], [8]]),
        ([64, 8, 8], [[64], [8, 8]]),
        ([8, 16], [[8, 16]]),  # no parameter is small enough to come last
    ],
)
def test_the_bucket_that_nothing_hides_is_short(counts: list[int], buckets: list[list[int]]) -> None:
    """Parameters of 64 bytes and more in buckets of 256."""
    cut = lay_out(counts, range(len(counts)), 256, 2, 8, short_end=True)
    assert [[slot.count for slot in layout.slots] for layout in cut] == buckets
