"""Arithmetic of sets of time, each a list of intervals [begin, end), merged: in order, apart, none empty."""

from __future__ import annotations

from collections.abc import Iterable

Interval = tuple[int, int]
"""Begin and end, in ns; the end is no part of it."""
Intervals = list[Interval]


def union(*sets: Iterable[Interval]) -> Intervals:
    """The union of ``sets``, which need not be merged; intervals that touch become one."""
    merged: Intervals = []
    for begin, end in sorted(interval for intervals in sets for interval in intervals):
        if end <= begin:
            continue
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def intersection(some: Intervals, others: Intervals) -> Intervals:
    """The intersection of two merged sets."""
    overlaps: Intervals = []
    at = 0
    for begin, end in some:
        while at < len(others) and others[at][1] <= begin:
            at += 1
        reach = at
        while reach < len(others) and others[reach][0] < end:
            overlaps.append((max(begin, others[reach][0]), min(end, others[reach][1])))
            reach += 1
    return overlaps


def difference(some: Intervals, others: Intervals) -> Intervals:
    """The difference of the merged sets ``some`` and ``others``."""
    if not some:
        return []
    begins = [some[0][0], *(end for _, end in others)]
    ends = [*(begin for begin, _ in others), some[-1][1]]
    gaps = [(begin, end) for begin, end in zip(begins, ends, strict=True) if begin < end]
    return intersection(some, gaps)


def total(intervals: Intervals) -> int:
    """Length of a merged set."""
    return sum(end - begin for begin, end in intervals)
