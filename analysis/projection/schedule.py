"""Duration of a pass when communication overlaps computation: a recurrence over buckets or units.

A rank has one stream of computation and one of communication. Segment i of a pass computes once its parameters are
gathered, and its gradients are reduced once it is done. With overlap, the gather for segment i+1 starts with segment
i; without, nothing overlaps. Collectives run one after another, in the order in which they are issued.
"""

from __future__ import annotations

from collections.abc import Sequence


def pass_s(compute_s: Sequence[float], gather_s: Sequence[float], reduce_s: Sequence[float], *, overlap: bool) -> float:
    """Seconds from the start of a pass until its last segment is computed and its last collective is done.

    The three have one entry per segment, in seconds; 0 means that a segment gathers or reduces nothing.
    """
    if not overlap:
        return sum(compute_s) + sum(gather_s) + sum(reduce_s)
    channel = gathered = gather_s[0]
    end = 0.0
    for at, seconds in enumerate(compute_s):
        start = max(end, gathered)
        end = start + seconds
        if at + 1 < len(compute_s) and gather_s[at + 1]:
            channel = max(channel, start) + gather_s[at + 1]
            gathered = channel
        if reduce_s[at]:
            channel = max(channel, end) + reduce_s[at]
    return max(end, channel)


def spread(values: Sequence[float], segments: int) -> list[float]:
    """``values`` over so many segments, evenly and in order; those that share a segment are added."""
    slots = [0.0] * segments
    for at, value in enumerate(values):
        slots[at * segments // len(values)] += value
    return slots
