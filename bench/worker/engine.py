"""The engine of a job, set up on the workload's module."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from torch import nn

from bench.engines.activation_checkpointing import checkpoint_units
from bench.engines.base import Engine, LossFunction, RankContext
from bench.engines.precision import reject_narrow
from bench.job import EngineJob, StepsJob
from bench.worker import straggler
from bench.worker.batches import batches, share_of, workload
from bench.worker.feed import feed_of
from bench.worker.loop import Feed

UNSTEADY_STEPS = 2
"""Steps before anything is counted: the first update makes optimizer state, and DDP rebuilds its buckets after it."""


def adapter(job: EngineJob[Any]) -> ModuleType:
    return importlib.import_module(f"{job.engine}.adapter")


def set_up(job: EngineJob[Any], module: nn.Module, units: list[nn.Module], context: RankContext) -> Engine:
    reject_narrow(module, job.spec.precision)
    engine: Engine = adapter(job).create()
    engine.setup(module, units, job.spec, context)
    return engine


def ready(job: StepsJob[Any], context: RankContext) -> tuple[Engine, Feed, LossFunction]:
    """The engine, the batches of its steps, and the loss function, slow on a straggler."""
    rank, device = context.rank, context.device
    work = workload(job.workload)
    module = work.build().to(device)
    feed = feed_of(job, rank, device)
    loss_fn: LossFunction = work.loss
    if rank == job.straggler_rank:
        mode = job.spec.checkpointing
        own_s = straggler.compute_s(
            *(module, batches(job, work, share_of(job, rank), 0, device)[0], work.loss, job.spec.precision, device),
            prepare=lambda copied: checkpoint_units(work.units(copied), mode),
        )
        loss_fn = straggler.slowed(work.loss, (job.straggler_factor - 1) * own_s, device)
    return set_up(job, module, work.units(module), context), feed, loss_fn
