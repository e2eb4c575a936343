"""Measured steps that end once the target loss is reached (``target_loss``)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store

from bench.worker.loop import TimedSteps
from results.target import WINDOW

NOT_YET = ""
"""The loss of a rank that has not taken ``WINDOW`` steps."""


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
        data_s=first.data_s + second.data_s,
    )


def mean_over_ranks(value: float, device: torch.device) -> float:
    """The mean of a number that each rank has; the same on all of them. Collective."""
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()


@dataclass
class Notices:
    """Ranks that do not wait for each other: each tells the others its loss after every ``WINDOW`` steps of its own.

    It goes over the store, so no rank waits for a step of another. A rank ends where the mean of all ranks' last losses
    is at most ``target`` or not finite, or where another rank has seen that. All ranks have made theirs before one of
    them takes a step: the barrier before measured steps sees to that.
    """

    target: float
    store: Store
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        self.store = PrefixStore("target_loss", self.store)
        if self.rank == 0:
            self.store.set("over", "no")
        self.store.set(str(self.rank), NOT_YET)

    @property
    def _losses(self) -> list[str]:
        return [str(rank) for rank in range(self.world_size)]

    def ended(self, losses: list[Tensor]) -> bool:
        """Whether this rank's last step was its last."""
        if len(losses) % WINDOW:
            return False
        self.store.set(str(self.rank), str(float(torch.stack(losses[-WINDOW:]).double().mean())))
        over, *latest = self.store.multi_get(["over", *self._losses])
        if over != b"yes" and all(latest):
            loss = statistics.fmean(map(float, latest))
            if loss > self.target and math.isfinite(loss):
                return False
            self.store.set("over", "yes")
            return True
        return bool(over == b"yes")
