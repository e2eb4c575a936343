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
    """Measured steps as they were timed; each step before them counts as the launch's median step."""


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
            return Reached(end, sum(launch.step_times_s()[:end]))
    return None


def _by_clock(ranks: list[RankSamples], target: float) -> Reached | None:
    """Follows the ends of all ranks' steps, each by the time since the common start."""
    ends = sorted(
        (end_s, number, steps)
        for number, rank in enumerate(ranks)
        for steps, end_s in enumerate(itertools.accumulate(rank.step_times_s()), start=1)
    )
    smoothed: dict[int, float] = {}
    for taken, (end_s, number, steps) in enumerate(ends, start=1):
        if steps >= WINDOW:
            smoothed[number] = statistics.fmean(ranks[number].losses[steps - WINDOW : steps])
        if len(smoothed) == len(ranks) and statistics.fmean(smoothed.values()) <= target:
            return Reached(taken / len(ranks), end_s)
    return None
