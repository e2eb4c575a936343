"""The training loop: steps over global batches, the same for every engine.

Step ``s`` trains on the global samples ``[s*G, (s+1)*G)``, and rank ``r`` takes the ``r``-th of N
equal shares and cuts it into ``accumulate`` micro-batches. The loop owns data and clock; the engine may
touch neither.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor

from bench.engines.base import Batch, Engine, JoinableEngine, LossFunction
from bench.measure.time.timeline import ProfilerWatch
from bench.measure.time.timing import Marker, marks, synchronize, wait_for_all

SETTLING_STEPS = 2


@dataclass(frozen=True)
class Share:
    """Which samples a rank trains on."""

    rank: int
    world_size: int
    rank_batch: int
    accumulate: int

    def global_batch(self, step: int) -> range:
        """Global sample indices of ``step``, of all shares."""
        size = self.world_size * self.rank_batch
        return range(step * size, (step + 1) * size)

    def micro_batches(self, step: int) -> list[range]:
        """Global sample indices of each micro-batch of ``step``."""
        first = (step * self.world_size + self.rank) * self.rank_batch
        micro = self.rank_batch // self.accumulate
        return [range(first + index * micro, first + (index + 1) * micro) for index in range(self.accumulate)]


class StepBatches(Protocol):
    """The micro-batches of one step, in order. A loader reads each when the iteration reaches it."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class Feed(Protocol):
    """The micro-batches of each step of a rank."""

    waits_per_step: int
    """Micro-batches of a step whose wait is a part of it; 0 where they are ready."""

    def take(self, step: int) -> StepBatches:
        """The micro-batches of the next step, on the device; ``step`` is its number in a pool."""
        ...

    def drain(self) -> None:
        """Drops what was read in advance."""
        ...

    def alone_per_s(self) -> float | None:
        """Samples per second that can be read while nothing trains; None where batches are ready."""
        ...

    def close(self) -> None:
        """Ends the processes that read."""
        ...


def train_step(
    engine: Engine,
    micro_batches: StepBatches,
    loss_fn: LossFunction,
    clock: Marker | None = None,
    *,
    marks_waits: bool = False,
) -> Tensor:
    """One step; returns the mean loss over the rank's share (on the device, not waited for).

    ``clock`` gets a mark after forward and backward of all micro-batches, and one after the update. With
    ``marks_waits`` it gets two per micro-batch instead of the first: after the wait for it, and after its backward.

    Losses are copied: torch keeps, behind the one number of a ``mse_loss``, all that it was reduced from.
    """
    losses, last = [], len(micro_batches) - 1
    for index, batch in enumerate(micro_batches):
        if clock and marks_waits:
            clock.mark()
        losses.append(engine.forward_backward(batch, loss_fn, sync=index == last).clone())
        if clock and (marks_waits or index == last):
            clock.mark()
    engine.optimizer_step()
    if clock:
        clock.mark()
    return torch.stack(losses).mean() if len(losses) > 1 else losses[0]


@dataclass(frozen=True)
class TimedSteps:
    """Samples of one rank, one entry per step."""

    forward_backward_s: list[float]
    optimizer_s: list[float]
    losses: list[float]
    wall_s: float
    backlog_s: float | None = None
    data_s: list[float] = field(default_factory=list)
    """Waiting for the batch; empty where batches are ready."""

    @property
    def step_s(self) -> list[float]:
        parts = [self.data_s, self.forward_backward_s, self.optimizer_s]
        return [sum(step) for step in zip(*filter(None, parts), strict=True)]


def timed_steps(
    engine: Engine,
    feed: Feed,
    count: int,
    loss_fn: LossFunction,
    device: torch.device,
    *,
    first: int = 0,
    join: bool = False,
    begin: Callable[[], None] | None = None,
    ended: Callable[[list[Tensor]], bool] | None = None,
) -> TimedSteps:
    """Times ``count`` steps on the batches of ``feed``, from a common start, without garbage collection.

    The first of them is step ``first`` of a pool. Steps begin with what a loader reads from then on, since ranks may
    have waited before: it is drained. ``begin`` is called directly after that. ``ended`` is called with the losses
    after each step, on the clock of the next one; where it is true, that step was the last.

    With ``join``, ranks may have unequal counts; a rank that is done answers the others' collectives, off the clock.
    """
    losses: list[Tensor] = []
    gc.collect()
    gc.disable()
    try:
        synchronize(device)
        if count and feed.waits_per_step:
            wait_for_all(device)  # else the loader of a rank that waits for another below would read in advance again
            feed.drain()
        if begin:
            begin()
        wait_for_all(device)
        clock = marks(device)
        started = time.perf_counter()
        clock.mark()
        with cast(JoinableEngine, engine).join() if join else contextlib.nullcontext():
            for step in range(first, first + count):
                micro_batches = feed.take(step)
                losses.append(train_step(engine, micro_batches, loss_fn, clock, marks_waits=feed.waits_per_step > 0))
                if ended and ended(losses):
                    break
            launched_s = time.perf_counter() - started
            synchronize(device)
            wall_s = time.perf_counter() - started
    finally:
        gc.enable()
    data, forward_backward, update = by_part(clock.intervals_s(), feed.waits_per_step)
    backlog_s = wall_s - launched_s if device.type == "cuda" else None
    numbers = [float(loss) for loss in losses]
    return TimedSteps(forward_backward, update, numbers, wall_s, backlog_s, data)


def by_part(intervals_s: list[float], waits: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds of data, of forward and backward, and of the update, per step, from the intervals between marks.

    A step of ``waits`` micro-batches has two intervals for each, and the update. Without waits it has two in all.
    """
    parts = 2 * waits + 1 if waits else 2
    *turns, update = (intervals_s[part::parts] for part in range(parts))
    data, forward_backward = (turns[0::2], turns[1::2]) if waits else ([], turns)
    return _sums(data), _sums(forward_backward), update


def _sums(of_micro_batches: list[list[float]]) -> list[float]:
    return [sum(step) for step in zip(*of_micro_batches, strict=True)]


def profiled_steps(
    engine: Engine,
    fetch: Callable[[int], StepBatches],
    count: int,
    loss_fn: LossFunction,
    watch: ProfilerWatch,
    *,
    waits: int = 0,
    drain: Callable[[], None],
) -> None:
    """Trains ``count`` steps under ``watch``, each on the batch from ``fetch``, from a common start.

    Profilers take a second to begin, on some ranks longer than on others, and steps that follow are longer: ranks take
    ``SETTLING_STEPS`` that are not watched, and a barrier, within the context. Meanwhile a loader reads in advance:
    ``drain`` drops that directly before the barrier. Each of ``waits`` micro-batches is waited for in turn.
    """
    gc.collect()
    with watch:
        for step in range(SETTLING_STEPS):
            train_step(engine, fetch(step), loss_fn)
        synchronize(watch.device)
        drain()
        wait_for_all(watch.device)
        for step in range(SETTLING_STEPS, SETTLING_STEPS + count):
            with watch.step(fetches=max(1, waits)) as phases:
                micro_batches = fetch(step)
                if not waits:
                    phases.mark()
                train_step(engine, micro_batches, loss_fn, phases, marks_waits=waits > 0)
