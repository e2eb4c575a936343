"""A rank's life: its process, its group, and what its launch is for."""

from __future__ import annotations

import dataclasses

from bench.engines.base import RankContext, ServerContext
from bench.job import Job
from bench.placement import Placement, Rendezvous
from bench.rank_results import RankResult
from bench.worker import global_state
from bench.worker.batches import load
from bench.worker.check import check
from bench.worker.engine import adapter
from bench.worker.group import join_group, meet, open_store, use_interface
from bench.worker.machine import collective_times, peak
from bench.worker.process import prepare_process
from bench.worker.profile import profiled
from bench.worker.reference import noise, reference
from bench.worker.stopwatch import Stopwatch
from bench.worker.timing import timing
from results.launches import ServerCounts


def run(job: Job, rank: int, placement: Placement, rendezvous: Rendezvous) -> RankResult | ServerCounts:
    """Everything that one process does in one launch. Raises what goes wrong."""
    global_state.check_at_start()
    result = work_of(job, rank, placement, rendezvous)
    return dataclasses.replace(result, changes=global_state.changes())


def work_of(job: Job, rank: int, placement: Placement, rendezvous: Rendezvous) -> RankResult | ServerCounts:
    seconds = Stopwatch()
    device = prepare_process(job, rank, placement)
    if job.purpose == "load":
        return load(job)
    if job.purpose == "reference":
        return reference(job, device)
    if job.purpose == "noise":
        return noise(job, device)
    use_interface(placement)
    store = open_store(job, rank, rendezvous)
    if rank >= job.world_size:
        counts: ServerCounts = adapter(job).serve(job.spec, ServerContext(rank - job.world_size, job.servers, store))
        return counts
    join_group(job, rank, device, store)
    seconds.lap("init_s")
    context = RankContext(rank, job.spec.world_size, device, store, placement=placement)
    if job.purpose == "ceiling":
        result: RankResult = peak(job, context)
    elif job.purpose == "collectives":
        result = collective_times(job, context, seconds)
    elif job.purpose == "check":
        result = check(job, context)
    elif job.purpose == "profile":
        result = profiled(job, context)
    else:
        result = timing(job, context, seconds)
    meet(job, context, "end")  # rank 0 holds the store: nobody leaves before all are done
    return dataclasses.replace(result, seconds=seconds.laps)
