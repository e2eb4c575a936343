"""When a launch reached ``target_loss``: the smoothed loss, and the steps and the time until then."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from results.launches import Launch

WINDOW = 10
"""Steps whose mean loss over all ranks is the smoothed loss; ranks look at it after as many steps."""


@dataclass(frozen=True)
class Reached:
    """Steps from the initial weights on, and their seconds."""

    steps: float
    """Warm-up steps included."""
    seconds: float
    """Measured steps as they were timed; each step before them counts as the launch's median step."""


def reached(launch: Launch, target: float) -> Reached | None:
    """The first step after which the smoothed loss is at most ``target``; None if there is none.

    The losses of warm-up steps are not recorded, so the first window begins after them.
    """
    losses = [statistics.fmean(step) for step in zip(*(rank.losses for rank in launch.ranks), strict=True)]
    times_s = launch.step_times_s()
    first = launch.ranks[0]
    before = len(first.warmup_step_s) + (first.updates.settling if first.updates else 0)
    for end in range(WINDOW, len(losses) + 1):
        if statistics.fmean(losses[end - WINDOW : end]) <= target:
            return Reached(before + end, before * statistics.median(times_s) + sum(times_s[:end]))
    return None
