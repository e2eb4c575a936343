"""``search=max_batch``: the largest batch per rank under a memory limit, bracketed by launches.

A batch is tried by a launch of its own, which takes a few steps and is not timed. On a CPU it fits if no rank's
allocator peak exceeds the limit; on a GPU the limit is the allocator's, and a batch does not fit if a rank runs out
of memory. A line through measured peaks says which batch to try next, never what fits: the search ends when the
largest batch that was seen to fit and the smallest that was seen not to are neighbours, or at the end of its range.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from bench.job import LaunchResult
from bench.rank_results import CheckResult
from results.memory import RankMemory, Search, Trial

GROWTH = 8
"""How many times as large as what fits the next trial may be."""


def run(
    search: Search,
    start: int,
    launch: Callable[[int], LaunchResult[CheckResult]],
    keep: Callable[[Search, LaunchResult[CheckResult]], None],
) -> LaunchResult[CheckResult] | None:
    """Tries batches until the answer is bracketed; ``keep`` gets the search after each trial.

    Resumes ``search``. Returns the launch that ended otherwise than by fitting or running out of memory.
    """
    while (batch := next_batch(search, start)) is not None:
        result = launch(batch)
        if result.status not in ("ok", "oom"):
            return result
        search = dataclasses.replace(search, tried=[*search.tried, trial(batch, result, search.limit_bytes)])
        keep(search, result)
    return None


def trial(batch: int, result: LaunchResult[CheckResult], limit_bytes: int | None) -> Trial:
    """The trial of a batch from its launch. On a GPU the allocator enforces the limit: a launch that is ok fits."""
    if result.status == "oom":
        return Trial(batch, None, fits=False)
    peak = max(max(rank.step_peaks_bytes) for rank in memory_of(result))
    enforced = any(rank.reserved_bytes is not None for rank in memory_of(result))
    return Trial(batch, peak, fits=enforced or limit_bytes is None or peak <= limit_bytes)


def memory_of(result: LaunchResult[CheckResult]) -> list[RankMemory]:
    return [rank.memory for rank in result.ranks if rank.memory]


def next_batch(search: Search, start: int) -> int | None:
    """The batch to try next, ``start`` at first; None once the answer is bracketed."""
    top = search.max_batch // search.multiple_of
    low = search.largest_fit // search.multiple_of
    high = top + 1 if search.smallest_unfit is None else search.smallest_unfit // search.multiple_of
    if high - low <= 1:
        return None
    if not search.tried:
        wanted = start // search.multiple_of
    elif low == 0:
        wanted = 1
    elif search.smallest_unfit is None:
        wanted = _upwards(search, low)
    else:
        wanted = _between(search, low, high)
    return min(max(wanted, low + 1), high - 1) * search.multiple_of


def _upwards(search: Search, low: int) -> int:
    """All fitted so far: where the line through them reaches the limit, else twice as much.

    Where the line says that no more fits, the next one up is tried, then steps that double.
    """
    fitted = sorted(entry.batch // search.multiple_of for entry in search.tried if entry.fits)
    reached = _line(search, [entry for entry in search.tried if entry.fits])
    if reached is None:
        return 2 * low
    if reached > low:
        return min(reached, GROWTH * low)
    last = low - fitted[-2]
    return low + (2 * last if last <= low // 8 else 1)


def _between(search: Search, low: int, high: int) -> int:
    """The line through the nearest trials at the limit; the middle if the last trial did not halve the range."""
    before = dataclasses.replace(search, tried=search.tried[:-1])
    if before.smallest_unfit and (high - low) * search.multiple_of > (before.smallest_unfit - before.largest_fit) / 2:
        return (low + high) // 2
    nearest = [entry for entry in search.tried if entry.batch in (search.largest_fit, search.smallest_unfit)]
    measured = [entry for entry in nearest if entry.peak_bytes is not None]
    reached = _line(search, measured if len(measured) == 2 else [entry for entry in search.tried if entry.fits])
    return (low + high) // 2 if reached is None else reached


def _line(search: Search, points: list[Trial]) -> int | None:
    """The last multiple within the limit on the line through the largest point and one far from it: memory grows in
    steps, and neighbours may have the same peak. None without a line."""
    if len(points) < 2 or search.limit_bytes is None:
        return None
    *others, second = sorted(points, key=lambda entry: entry.batch)
    first = next((entry for entry in reversed(others) if 2 * entry.batch <= second.batch), others[0])
    assert first.peak_bytes is not None and second.peak_bytes is not None
    rise = second.peak_bytes - first.peak_bytes
    if rise <= 0:
        return None
    room = search.limit_bytes - second.peak_bytes
    return (second.batch + room * (second.batch - first.batch) // rise) // search.multiple_of
