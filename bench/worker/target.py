"""Measured steps that end once the target loss is reached (``target_loss``)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.distributed as dist

from bench.worker.loop import TimedSteps
from results.target import WINDOW


def steps_until(target: float, limit: int, device: torch.device, timed: Callable[[int, int], TimedSteps]) -> TimedSteps:
    """Blocks of ``WINDOW`` steps until the mean loss of one, over all ranks, is at most ``target``, or not finite.

    ``timed(first, count)`` trains and times ``count`` steps from step ``first`` on. There are ``limit`` steps at most.
    Ranks average their losses between two blocks, off the clock. Collective.
    """
    done: TimedSteps | None = None
    for first in range(0, limit, WINDOW):
        block = timed(first, min(WINDOW, limit - first))
        done = block if done is None else joined(done, block)
        loss = mean_over_ranks(statistics.fmean(block.losses), device)
        if loss <= target or not math.isfinite(loss):
            break
    assert done is not None, "a launch has at least one step"
    return done


def joined(first: TimedSteps, second: TimedSteps) -> TimedSteps:
    """The steps of both, one after the other; the backlog is that of the last."""
    return replace(
        second,
        forward_backward_s=first.forward_backward_s + second.forward_backward_s,
        optimizer_s=first.optimizer_s + second.optimizer_s,
        losses=first.losses + second.losses,
        wall_s=first.wall_s + second.wall_s,
    )


def mean_over_ranks(value: float, device: torch.device) -> float:
    """The mean of a number that each rank has; the same on all of them. Collective."""
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()
