"""A launch that checks: parity with the reference, what steps hold in memory, what one step communicates."""

from __future__ import annotations

import contextlib
import gc
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bench import loop, parity, record
from bench.engines.base import Batch, Engine, RankContext
from bench.engines.batches import tensors_of
from bench.job import Job
from bench.measure import comm, memory
from bench.worker.engine import UNSTEADY_STEPS, set_up
from bench.worker.model import digest
from bench.worker.shares import batches, share_of, workload
from workloads.base import Workload

WATCHED_STEPS = 3
"""Steps whose peak memory is counted."""
LET_GO_S = 0.02
"""Pause before such a step. A thread of gloo that is the last to hold a collective's tensors needs the GIL to let go of
them; those it still holds as a step begins would be counted in all of that step."""


def check(job: Job, context: RankContext) -> dict[str, Any]:
    """Parity against the reference, then the memory of steps, then the collectives of one. Nothing here is timed."""
    rank, device = context.rank, context.device
    counter = memory.StepMemory(device)
    with counter if job.memory else contextlib.nullcontext():
        work = workload(job.workload)
        module = work.build().to(device)
        engine = set_up(job, module, work.units(module), context)
        del module
        share = share_of(job, rank)
        result: dict[str, Any] = {
            "describe": engine.describe(),
            "parity": None,
            "memory": None,
            "collectives": None,
        }
        losses = [
            loop.train_step(engine, batches(job, work, share, step, device), work.loss)
            for step in range(job.parity_steps)
        ]
        if job.parity_steps:
            result["parity"] = compare_with_reference(job, rank, engine, losses)
        del losses  # else they would be counted
        if job.memory or job.collectives:
            for step in range(job.parity_steps, UNSTEADY_STEPS):
                loop.train_step(engine, batches(job, work, share, step, device), work.loss)
        if job.memory:
            memory_of_steps(job, engine, work, context, counter)
    if job.collectives:
        result["collectives"] = [asdict(line) for line in collectives_of_step(job, engine, work, context)]
    engine.teardown()
    if job.memory:
        result["memory"] = asdict(counter.result())
    return result


def compare_with_reference(job: Job, rank: int, engine: Engine, losses: list[Tensor]) -> dict[str, Any] | None:
    """Collective; the result is rank 0's."""
    means = torch.stack(losses).double()
    dist.all_reduce(means)
    means /= job.world_size
    weights = engine.full_state_dict()
    if rank:
        return None
    reference = parity.Reference.load(Path(job.reference))
    limit = parity.tolerance(job.spec.precision, job.spec.compression, partial_sums=job.partial_sums)
    compared = parity.compare(reference, means.tolist(), weights, job.spec.precision, limit)
    return asdict(compared) | {"weights_digest": digest([weights[name] for name in sorted(weights)])}


def memory_of_steps(job: Job, engine: Engine, work: Workload, context: RankContext, counter: memory.StepMemory) -> None:
    """Counts whole steps, with what is in memory when each begins and between its backward and update."""
    share, device = share_of(job, context.rank), context.device
    first = max(job.parity_steps, UNSTEADY_STEPS)
    for step in range(first, first + WATCHED_STEPS):
        micro_batches = batches(job, work, share, step, device)
        gc.collect()
        time.sleep(LET_GO_S)
        watched_step(job, engine, work, counter, micro_batches)
        del micro_batches


def watched_step(
    job: Job, engine: Engine, work: Workload, counter: memory.StepMemory, micro_batches: list[Batch]
) -> None:
    inputs = [entry for batch in micro_batches for entry in tensors_of(batch)]
    with watched_parameters(job), counter.step(engine.state(), inputs):
        for index, batch in enumerate(micro_batches):
            counter.forward()
            engine.forward_backward(batch, work.loss, sync=index == len(micro_batches) - 1)
        counter.between(engine.state())
        engine.optimizer_step()


def watched_parameters(job: Job) -> contextlib.AbstractContextManager[None]:
    """A compiled module has no hooks that could watch them."""
    return contextlib.nullcontext() if job.spec.compile else memory.gathered_parameters()


def collectives_of_step(job: Job, engine: Engine, work: Workload, context: RankContext) -> list[record.Collective]:
    """What this rank calls in one step, after those whose memory was counted; with ``local_steps``, in so many."""
    first = max(job.parity_steps, UNSTEADY_STEPS) + WATCHED_STEPS
    share = share_of(job, context.rank)
    ledger = comm.Ledger()
    for step in range(first, first + job.spec.local_steps):
        micro_batches = batches(job, work, share, step, context.device)
        with ledger:
            loop.train_step(engine, micro_batches, work.loss)
    return ledger.lines()
