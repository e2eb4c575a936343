"""The memory of one step over time: sampled for the record, and in full as counters of a Chrome trace."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from bench.measure.memory.allocations import KINDS, Step, Trace
from results.traces import MemoryTimeline, PhaseStart

SAMPLES = 240
"""At most, in a record: a figure shows no more."""

Change = tuple[int, str, int]
"""A moment in ns from the begin of the step, a kind of use, and the bytes that it has from then on."""


def timeline(trace: Trace, step: Step, rank: int) -> MemoryTimeline:
    """The step in at most ``SAMPLES`` intervals, each with the bytes of its moment with the most."""
    duration_ns = _since(trace, step, step.end)
    changed = {kind for _, kind, _ in changes(trace, step)}
    kinds = [kind for kind in KINDS if kind in changed]
    samples = [_of_interval(moments) for moments in _intervals(trace, step, duration_ns)]
    return MemoryTimeline(
        rank=rank,
        duration_s=duration_ns / 1e9,
        phases=[PhaseStart(phase, _since(trace, step, at) / 1e9) for at, phase in phases(step)],
        times_s=[at / 1e9 for at, _ in samples],
        bytes_by_kind={kind: [sizes.get(kind, 0) for _, sizes in samples] for kind in kinds},
    )


def phases(step: Step) -> list[tuple[int, str]]:
    """When each phase begins; a micro-batch that follows the begin of the step begins none."""
    begun = [(-1, ""), *step.phases]
    return [(at, phase) for (_, before), (at, phase) in pairwise(begun) if phase != before]


def changes(trace: Trace, step: Step) -> Iterator[Change]:
    """What each kind has as the step begins, then every allocation and release in it."""
    sizes = trace.rest_by_kind(step)
    yield from ((0, kind, size) for kind, size in sizes.items())
    events = [
        (at, trace.kind_in(step, block), size)
        for block in trace.blocks
        for at, size in ((block.start, block.size), (block.end, -block.size))
        if step.start < at < step.end
    ]
    for at, kind, size in sorted(events):
        sizes[kind] = sizes.get(kind, 0) + size
        yield _since(trace, step, at), kind, sizes[kind]


def write_counters(trace: Trace, step: Step, rank: int, path: Path) -> None:
    """Writes the step as JSON that Perfetto opens: a counter per kind of use and their total, and the phases."""
    events: list[dict[str, object]] = [
        {"ph": "M", "pid": rank, "name": "process_name", "args": {"name": f"rank {rank}: memory of a step"}}
    ]
    starts = phases(step)
    ends = [at for at, _ in starts[1:]] + [step.end]
    for (at, phase), end in zip(starts, ends, strict=True):
        begin_ns, end_ns = _since(trace, step, at), _since(trace, step, end)
        span = {"ts": begin_ns / 1e3, "dur": (end_ns - begin_ns) / 1e3}
        events.append({"ph": "X", "pid": rank, "tid": 0, "name": phase} | span)
    sizes: dict[str, int] = {}
    for at_ns, kind, size in changes(trace, step):
        sizes[kind] = size
        for name, value in ((kind, size), ("total", sum(sizes.values()))):
            events.append({"ph": "C", "pid": rank, "name": name, "ts": at_ns / 1e3, "args": {"bytes": value}})
    path.write_text(json.dumps({"displayTimeUnit": "ms", "traceEvents": events}), encoding="utf-8")


Moments = list[tuple[int, dict[str, int]]]
"""Each moment at which memory changes, with the bytes of every kind."""


def _intervals(trace: Trace, step: Step, duration_ns: int) -> Iterator[Moments]:
    """The moments of each of ``SAMPLES`` intervals that has any; what was there before an interval is its first."""
    moments: Moments = []
    sizes: dict[str, int] = {}
    for at_ns, kind, size in changes(trace, step):
        sizes = sizes | {kind: size}
        if moments and moments[-1][0] == at_ns:
            moments.pop()
        moments.append((at_ns, sizes))
    starts = [at for at, _ in moments]
    width = max(1, duration_ns) / SAMPLES
    first = 0
    for number in range(1, SAMPLES + 1):
        last = bisect_right(starts, number * width) if number < SAMPLES else len(moments)
        if last > first:
            yield moments[first:last]
        first = last


def _of_interval(moments: Moments) -> tuple[int, dict[str, int]]:
    """Its begin, and the bytes of the moment with the most."""
    return moments[0][0], max((sizes for _, sizes in moments), key=lambda sizes: sum(sizes.values()))


def _since(trace: Trace, step: Step, at: float) -> int:
    """ns from the begin of the step to an event, by its position."""
    last = len(trace.times_ns) - 1
    return trace.times_ns[min(int(min(at, last)), last)] - trace.times_ns[step.start]
