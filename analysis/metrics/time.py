"""The step time and the throughput of one launch."""

from __future__ import annotations

import statistics
from math import nan

import numpy as np

from results.launches import Launch, in_periods
from results.record import Record


def step_time_s(launch: Launch) -> float:
    """The launch's statistic: median over its steps of the step time, which is the slowest rank's.

    Where ranks communicate in one of ``period`` steps only, it is the median of the means of as many in a row, which
    each hold one such.
    """
    return statistics.median(in_periods(launch.step_times_s(), launch.period))


def update_time_s(launch: Launch) -> float:
    """Median over the launch's steps of the slowest rank's update, from the end of backward to the end of the step.

    With the collectives and copies of the update. With ``offload``, ``native`` copies in the update only; fully_shard
    and DeepSpeed also copy in forward and backward, whose time this is without.
    """
    by_step: list[float] = [max(times_s) for times_s in zip(*(rank.optimizer_s for rank in launch.ranks), strict=False)]
    return statistics.median(by_step)


def throughput_per_s(record: Record, launch: Launch) -> float:
    """Global units over total time: global_batch · units_per_sample · steps / the slowest rank's wall time.

    Ranks that do not wait for each other are counted until the first of them has taken all its steps: from then on
    fewer would be at work.
    """
    if record.model is None:
        return nan
    units_per_step = record.global_batch * record.model.units_per_sample / len(launch.ranks)
    if record.resolved.get("synchronous", True):
        total_s = max(rank.wall_s for rank in launch.ranks)
        return units_per_step * sum(len(rank.losses) for rank in launch.ranks) / total_s
    total_s = min(rank.wall_s for rank in launch.ranks)
    done = sum(int(np.sum(np.cumsum(rank.step_times_s()) <= total_s)) for rank in launch.ranks)
    return units_per_step * done / total_s
