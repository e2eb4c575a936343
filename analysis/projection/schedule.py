"""Duration of a pass when communication overlaps computation: a recurrence over buckets or units.

A rank has one stream of computation and one of communication. Segment i of a pass computes once its parameters are
gathered, and its gradients are reduced once it is done. With overlap, the gather for segment i+1 starts with segment
i; without, nothing overlaps. Collectives run one after another, in the order in which they are issued.

Collectives use processors and memory that computation uses, too. While one is in flight, computation runs at the rate
1 - c, with c the contention: 0 where overlap is free, 1 where it saves nothing. Calculon (Isaev et al. 2023) has the
same constant as ``processor_usage``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Seconds = float | NDArray[np.float64]
"""One value, or one for each of several sets of parameters."""
LEAST_RATE = 1e-12
"""The rate of computation at a contention of 1, so that nothing is divided by 0."""


def pass_s(
    compute_s: Sequence[Seconds],
    gather_s: Sequence[Seconds],
    reduce_s: Sequence[Seconds],
    *,
    overlap: bool,
    contention: Seconds = 0.0,
) -> Seconds:
    """Seconds from the start of a pass until its last segment is computed and its last collective is done.

    The three have one entry per segment, in seconds; 0 means that a segment gathers or reduces nothing.
    ``contention`` is the share of its speed that computation loses while a collective is in flight.
    """
    if not overlap:
        return sum(compute_s) + sum(gather_s) + sum(reduce_s)
    channel = gathered = gather_s[0]
    end: Seconds = 0.0
    rate = np.maximum(LEAST_RATE, 1 - contention)
    for at, seconds in enumerate(compute_s):
        start = np.maximum(end, gathered)
        if at + 1 < len(compute_s) and not _is_none(gather_s[at + 1]):
            channel = np.maximum(channel, start) + gather_s[at + 1]
            gathered = channel
        end = start + seconds
        if not _is_none(contention):
            end = end + contention * np.minimum(np.maximum(0.0, channel - start), seconds / rate)
        if not _is_none(reduce_s[at]):
            channel = np.maximum(channel, end) + reduce_s[at]
    return np.maximum(end, channel)


def _is_none(seconds: Seconds) -> bool:
    return isinstance(seconds, float) and not seconds


def spread(values: Sequence[Seconds], segments: int) -> list[Seconds]:
    """``values`` over so many segments, evenly and in order; those that share a segment are added."""
    slots: list[Seconds] = [0.0] * segments
    for at, value in enumerate(values):
        slots[at * segments // len(values)] = slots[at * segments // len(values)] + value
    return slots
