"""When a launch reached ``target_loss``: the smoothed loss, and the steps and the time until then."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass

from results.launches import Launch, RankSamples

WINDOW = 10
"""Steps whose mean loss over all ranks is the smoothed loss; ranks look at it after as many steps."""


@dataclass(frozen=True)
class Reached:
    """Steps from the initial weights on, and their seconds."""

    steps: float
    """Warm-up steps included. Of ranks that do not wait for each other: the mean over ranks."""
    seconds: float
    """Measured steps as they were timed; each step before them counts as the launch's median step.

    Ranks that wait for each other compare their losses off the clock; others send theirs on it.
    """


def reached(launch: Launch, target: float, *, synchronous: bool = True) -> Reached | None:
    """When the smoothed loss is first at most ``target``; None if it never is.

    The losses of warm-up steps are not recorded, so the first window begins after them. ``synchronous``: whether ranks
    wait for each other in each step. Otherwise the smoothed loss at a time is the mean over ranks of the
    losses of each one's last ``WINDOW`` steps.
    """
    measured = _in_step(launch, target) if synchronous else _by_clock(launch.ranks, target)
    if measured is None:
        return None
    first = launch.ranks[0]
    before = len(first.warmup_step_s) + (first.updates.settling if first.updates else 0)
    return Reached(before + measured.steps, before * statistics.median(launch.step_times_s()) + measured.seconds)


def _in_step(launch: Launch, target: float) -> Reached | None:
    losses = [statistics.fmean(step) for step in zip(*(rank.losses for rank in launch.ranks), strict=True)]
    for end in range(WINDOW, len(losses) + 1):
        if statistics.fmean(losses[end - WINDOW : end]) <= target:
            return Reached(end, _elapsed_s(launch.ranks, end))
    return None


def _elapsed_s(ranks: list[RankSamples], end: int) -> float:
    """Ranks start every ``WINDOW`` steps together, so a block takes as long as for the rank that takes longest."""
    times_s = [rank.step_times_s() for rank in ranks]
    return sum(max(sum(own[at : min(at + WINDOW, end)]) for own in times_s) for at in range(0, end, WINDOW))


def _by_clock(ranks: list[RankSamples], target: float) -> Reached | None:
    """Follows the ends of all ranks' steps, each by the time since the common start.

    Ranks end by what each of them has sent to the others, after every ``WINDOW`` steps of its own; that counts, too.
    """
    ends = sorted(
        (end_s, number, steps)
        for number, rank in enumerate(ranks)
        for steps, end_s in enumerate(itertools.accumulate(rank.step_times_s()), start=1)
    )
    smoothed: dict[int, float] = {}
    sent: dict[int, float] = {}
    for taken, (end_s, number, steps) in enumerate(ends, start=1):
        if steps >= WINDOW:
            smoothed[number] = statistics.fmean(ranks[number].losses[steps - WINDOW : steps])
        if steps % WINDOW == 0:
            sent[number] = smoothed[number]
        for latest in (smoothed, sent):
            if len(latest) == len(ranks) and statistics.fmean(latest.values()) <= target:
                return Reached(taken / len(ranks), end_s)
    return None
