"""Launches without engine and workload: peak FLOP/s of matrix products, links between hosts, collectives by size."""

from __future__ import annotations

from bench.engines.base import RankContext
from bench.job import CeilingJob, CollectivesJob, HostCheckJob
from bench.measure.communication import by_size as collectives_by_size
from bench.measure.communication import host_links, sizes
from bench.measure.machine import interference, peak_flops
from bench.measure.time.timing import wait_for_all
from bench.rank_results import CeilingResult, CollectivesResult, HostCheckResult
from bench.worker.stopwatch import Stopwatch


def peak(job: CeilingJob, context: RankContext) -> CeilingResult:
    """The peak FLOP/s of this rank in matrix products, all ranks at once, with its interference."""
    watch = interference.Watch(context.placement, context.device)
    watch.begin()
    ceiling = peak_flops.measure(job.precision, context.device, one_clock=context.placement.one_clock)
    return CeilingResult(ceiling=ceiling, interference=watch.end())


def host_check(job: HostCheckJob, context: RankContext) -> HostCheckResult:
    """The peak of this rank's device while all others measure theirs, and the links from its host."""
    wait_for_all(context.device)
    peak = peak_flops.measure_own(job.precision, context.device)
    links = host_links.measure(job.ranks_by_host or [job.world_size], context.device)
    return HostCheckResult(flops_per_s=peak.flops_per_s, links=links)


def collective_times(job: CollectivesJob, context: RankContext, seconds: Stopwatch) -> CollectivesResult:
    """``workload=collectives``: the same times on every rank, with this rank's interference."""
    options = sizes.collective_options(job.options)
    if context.device.type == "cuda":  # so that clocks are up when they are read first
        collectives_by_size.measure(options, 1, 0, context.device)
    watch = interference.Watch(context.placement, context.device)
    watch.begin()
    times = collectives_by_size.measure(options, job.iterations, job.warmup, context.device)
    disturbance = watch.end()
    seconds.lap("measured_s")
    return CollectivesResult(collective_times=times, interference=disturbance)
