"""What parity compares with: one process, no engine, and the micro-batches of all ranks."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from bench import loop, parity
from bench.engines.base import Batch
from bench.engines.batches import tensors_of
from bench.engines.precision import weight_dtype
from bench.job import Job
from bench.worker.model import activation_bytes, digest, model_facts
from bench.worker.preconditions import checked_module, in_eval_mode
from bench.worker.reached import Reached
from bench.worker.shares import batches, share_of, workload
from workloads.base import Workload


def reference(job: Job, device: torch.device) -> dict[str, Any]:
    """The single process that parity compares with, and what the model is."""
    work = workload(job.workload)
    module = checked_module(work, job.workload.called)
    eval_mode = in_eval_mode(module)
    reached, batches_of_steps = Reached(module), global_batches(job, work, device)
    trained = parity.train_reference(module, batches_of_steps, reached.watching(work.loss), job.spec, device)
    trained.save(Path(job.reference))
    first = [entry for batch in global_batches(job, work, device, steps=1)[0] for entry in tensors_of(batch)]
    shares = reference_shares(job)
    facts = replace(
        model_facts(work, digest(first), job.spec.precision),
        activation_bytes=activation_bytes(job, work, device),
        skipped=reached.skipped(),
        eval_mode=eval_mode,
        uneven=reached.uneven(len(shares), shares[0].accumulate),
    )
    return {"model": asdict(facts)}


def resolution(job: Job, device: torch.device) -> dict[str, Any]:
    """The parity error of the reference against itself, begun from weights that differ in the last bit."""
    work = workload(job.workload)
    module = work.build()
    parity.nudge(module, weight_dtype(job.spec.precision), job.workload.seed)
    trained = parity.train_reference(module, global_batches(job, work, device), work.loss, job.spec, device)
    against = parity.Reference.load(Path(job.reference))
    return {"resolution": parity.compare(against, trained.losses, trained.final, job.spec.precision).error}


def global_batches(job: Job, work: Workload, device: torch.device, steps: int | None = None) -> list[list[Batch]]:
    """The micro-batches of all ranks, for each parity step."""
    shares = reference_shares(job)
    return [
        [batch for share in shares for batch in batches(job, work, share, step, device)]
        for step in range(job.parity_steps if steps is None else steps)
    ]


def reference_shares(job: Job) -> list[loop.Share]:
    """The shares of all replicas that there are, cut as finely as the engine cuts them."""
    ranks = 1 if job.spec.backend == "fake" else job.spec.world_size
    shares = [share_of(job, rank) for rank in range(0, ranks, job.ranks_per_replica)]
    return [replace(share, accumulate=share.accumulate * job.microbatches) for share in shares]
