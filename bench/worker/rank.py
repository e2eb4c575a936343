"""One rank from start to result: process, process group, and the purpose of its launch."""

from __future__ import annotations

import dataclasses
from typing import Any

from bench.engines.base import RankContext, ServerContext
from bench.job import (
    CeilingJob,
    CheckJob,
    CollectivesJob,
    EngineJob,
    HostCheckJob,
    Job,
    LoadJob,
    NoiseJob,
    ProfileJob,
    ReferenceJob,
    TimingJob,
    TrainingJob,
)
from bench.placement import Placement, Rendezvous
from bench.rank_results import RankResult
from bench.worker import global_state
from bench.worker.batches import load
from bench.worker.check import check
from bench.worker.engine import adapter
from bench.worker.group import join_group, open_store, use_interface, wait_for_all
from bench.worker.machine import collective_times, host_check, peak
from bench.worker.process import prepare_process
from bench.worker.profile import profiled
from bench.worker.reference import noise, reference
from bench.worker.stopwatch import Stopwatch
from bench.worker.timing import timing
from results.launches import ServerCounts


def run(job: Job[Any], rank: int, placement: Placement, rendezvous: Rendezvous) -> RankResult | ServerCounts:
    """Runs one process of a launch; returns its result. Raises any error of its work."""
    global_state.check_at_start()
    result = work_of(job, rank, placement, rendezvous)
    return dataclasses.replace(result, changes=global_state.changes())


def work_of(job: Job[Any], rank: int, placement: Placement, rendezvous: Rendezvous) -> RankResult | ServerCounts:
    seconds = Stopwatch()
    device = prepare_process(job, rank, placement)
    match job:
        case LoadJob():
            return load(job)
        case ReferenceJob():
            return reference(job, device)
        case NoiseJob():
            return noise(job, device)
    use_interface(placement)
    store = open_store(job, rank, rendezvous)
    if rank >= job.world_size:
        assert isinstance(job, EngineJob)
        counts: ServerCounts = adapter(job).serve(job.spec, ServerContext(rank - job.world_size, job.servers, store))
        return counts
    world_size = job.spec.world_size if isinstance(job, TrainingJob) else job.world_size
    join_group(job, rank, world_size, device, store)
    seconds.lap("init_s")
    first_use = job.first_use if isinstance(job, EngineJob) else ""
    context = RankContext(rank, world_size, device, store, first_use, placement)
    result = with_others(job, context, seconds)
    wait_for_all(job, context, "end")  # rank 0 has the store: no rank exits before all are done
    return dataclasses.replace(result, seconds=seconds.laps)


def with_others(job: Job[Any], context: RankContext, seconds: Stopwatch) -> RankResult:
    """Runs the purpose of the launch within its process group."""
    match job:
        case CheckJob():
            return check(job, context)
        case TimingJob():
            return timing(job, context, seconds)
        case ProfileJob():
            return profiled(job, context)
        case CeilingJob():
            return peak(job, context)
        case HostCheckJob():
            return host_check(job, context)
        case CollectivesJob():
            return collective_times(job, context, seconds)
    raise TypeError(f"no rank can do {type(job).__name__}")
