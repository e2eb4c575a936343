"""A number per launch of two configurations, round by round where they share rounds, and the ratio of the two."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from analysis.statistics import medians
from analysis.statistics.medians import Interval
from results.launches import Launch, shared_rounds
from results.record import Record

Statistic = Callable[[Record, Launch], float]


def samples(first: Record, second: Record, statistic: Statistic) -> tuple[list[float], list[float], bool]:
    """A number per launch of either cell, and whether they are paired: the same rounds of one run, two or more."""
    if first.rounds_id == second.rounds_id:
        above, below = in_shared_rounds(first, second, statistic)
        if len(above) > 1:
            return above, below, True
    above, below = ([statistic(record, launch) for launch in record.launches] for record in (first, second))
    return above, below, False


def in_shared_rounds(first: Record, second: Record, statistic: Statistic) -> tuple[list[float], list[float]]:
    """A number per launch of either cell, of the rounds that both have, in their order."""
    rounds = shared_rounds(first.launches, second.launches)
    return [statistic(first, launch) for launch, _ in rounds], [statistic(second, launch) for _, launch in rounds]


def ratio(top: Sequence[float], bottom: Sequence[float], *, paired: bool) -> Interval:
    """The median of the rounds' ratios; where rounds are not shared, the ratio of the medians."""
    if paired:
        return medians.median_interval([above / below for above, below in zip(top, bottom, strict=True)])
    return medians.ratio_interval(top, bottom, paired=False)
