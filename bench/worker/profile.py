"""The profile launch: a few steps attributed to their parts, with waiting for other ranks as a part of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from bench.engines.base import Batch, RankContext
from bench.engines.exchange import all_gather_json
from bench.job import ProfileJob, TracePlace
from bench.measure.time import timeline
from bench.measure.time.timing import all_here
from bench.rank_results import ProfileResult
from bench.worker import loop
from bench.worker.batches import batches, share_of, workload
from bench.worker.engine import UNSTEADY_STEPS, ready
from bench.worker.trace_files import TraceFiles
from bench.worker.updates import UpdateWatch, settle
from results.traces import RankTraces

PROFILED_STEPS = 10


class Synchronized:
    """The micro-batches of a step, each read when the iteration reaches it; ranks wait for each other's first."""

    def __init__(self, unread: loop.StepBatches, wait: Callable[[], None]) -> None:
        self._unread, self._wait = unread, wait

    def __len__(self) -> int:
        return len(self._unread)

    def __iter__(self) -> Iterator[Batch]:
        for index, batch in enumerate(self._unread):
            if index == 0:
                self._wait()
            yield batch


def profiled(job: ProfileJob, context: RankContext) -> ProfileResult:
    """Attributes a few steps to their parts, in whole periods. Their batches are made within them, as in training.

    A rank that has its batch waits for those of the others: what a slow disk costs is data, on all ranks, and no
    straggler. With a loader and ``accumulate`` it waits for the first micro-batch of a step only: a wait at a later one
    would hold the difference of computation too. Where ranks take steps of their own, none waits.
    """
    rank, device = context.rank, context.device
    engine, feed, loss_fn = ready(job, context)
    work, share, first = workload(job.workload), share_of(job, rank), max(job.warmup, UNSTEADY_STEPS)
    loop.timed_steps(engine, feed, first, loss_fn, device)
    settling = settle(engine, device, lambda step: loop.train_step(engine, feed.take(step), loss_fn))
    watch = timeline.ProfilerWatch(device)
    period = job.spec.local_steps
    count = period * math.ceil(min(job.steps, PROFILED_STEPS) / period)

    def wait(step: int) -> None:
        if not job.servers and period == 1:
            all_here(context.store, job.world_size, f"data {step}")

    def fetch(step: int) -> loop.StepBatches:
        if feed.waits_per_step:
            return Synchronized(feed.take(step), lambda: wait(step))
        made = batches(job, work, share, first + step, device)
        wait(step)
        return made

    updates = UpdateWatch(engine, settling)
    waits = feed.waits_per_step
    loop.profiled_steps(engine, fetch, count, loss_fn, watch, waits=waits, drain=feed.drain)
    updated = updates.result(loop.SETTLING_STEPS + count)
    feed.close()
    engine.teardown()
    steps = watch.steps()
    of_ranks = all_gather_json([step.issues for step in steps], device)
    is_ordered = all_meet(job) and context.placement.one_clock
    skews = [timeline.skews(issues, rank) if is_ordered else None for issues in zip(*of_ranks, strict=True)]
    parts = [
        timeline.parts(step, skew or [], step_s)
        for step, skew, step_s in zip(steps, skews, watch.step_s(), strict=True)
    ]
    traces = written(job.traces, watch, rank) if job.traces else None
    return ProfileResult(parts=parts, straggler_known=None not in skews, updates=updated, traces=traces)


def all_meet(job: ProfileJob) -> bool:
    """Whether each collective of a step is one of all ranks, so that it waits for the last of them to start it."""
    spec = job.spec
    return job.ranks_per_replica == 1 and spec.shard_size is None and spec.secondary_shard_size is None


def written(place: TracePlace, watch: timeline.ProfilerWatch, rank: int) -> RankTraces:
    """The profile of the rank as a file."""
    files = TraceFiles(place, rank)
    files.write("steps", watch.export, events=len(watch.events()))
    return files.result()
