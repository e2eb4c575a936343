"""The timed launch: warm-up and measured steps, with their interference."""

from __future__ import annotations

from bench.engines.base import RankContext
from bench.job import TimingJob
from bench.measure.communication import interface_bytes
from bench.measure.machine import interference
from bench.rank_results import TimingResult
from bench.worker import loop
from bench.worker.batches import steps_of
from bench.worker.engine import ready
from bench.worker.group import wait_for_all
from bench.worker.stopwatch import Stopwatch
from bench.worker.target import Notices, steps_until
from bench.worker.updates import UpdateWatch, settle
from results import launches


def timing(job: TimingJob, context: RankContext, seconds: Stopwatch) -> TimingResult:
    """Warm-up and measured steps, over batches that exist before the clock starts or that a DataLoader reads."""
    rank, device = context.rank, context.device
    engine, feed, loss_fn = ready(job, context)
    talks = job.spec.backend == "gloo" and not job.silent and not (job.network and job.servers)  # servers read no link
    interface = interface_bytes.interface_of(rank, job.world_size, job.network, context.placement) if talks else None
    watch = interference.Watch(context.placement, device, interface)
    seconds.lap("setup_s")
    warmup = loop.timed_steps(engine, feed, steps_of(job, rank, job.warmup), loss_fn, device, join=job.spec.join)
    seconds.lap("warmup_s")
    settling = 0
    if job.warmup and not job.silent:
        settling = settle(engine, device, lambda step: loop.train_step(engine, feed.take(job.warmup + step), loss_fn))
    updates = UpdateWatch(engine, settling)
    watch.read_host()  # not in begin(): a loader would read in advance meanwhile

    def begin() -> None:
        watch.begin()
        if job.silent:
            wait_for_all(job, context, "measured")  # without communication, the barrier of the steps waits for no rank

    if job.target_loss is None:
        count = steps_of(job, rank, job.steps)
        measured = loop.timed_steps(engine, feed, count, loss_fn, device, join=job.spec.join, begin=begin)
    elif job.synchronous:
        begin()
        measured = steps_until(
            job.target_loss,
            job.steps,
            device,
            lambda first, count: loop.timed_steps(engine, feed, count, loss_fn, device, first=first),
        )
    else:
        notices = Notices(job.target_loss, context.store, rank, job.world_size)
        measured = loop.timed_steps(engine, feed, job.steps, loss_fn, device, begin=begin, ended=notices.ended)
    disturbance = watch.end()
    seconds.lap("measured_s")
    if feed.waits_per_step and not job.silent:
        wait_for_all(job, context, "loader")
    alone_per_s = None if job.silent else feed.alone_per_s()
    feed.close()
    updated = updates.result(len(measured.losses))
    engine.teardown()
    samples = launches.RankSamples(
        forward_backward_s=measured.forward_backward_s,
        optimizer_s=measured.optimizer_s,
        warmup_step_s=warmup.step_s,
        wall_s=measured.wall_s,
        losses=measured.losses,
        backlog_s=measured.backlog_s,
        data_s=measured.data_s,
        loader_per_s=alone_per_s,
        updates=updated,
    )
    return TimingResult(samples=samples, interference=disturbance)
