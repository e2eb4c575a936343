"""One rank, from process group to result: the only module where an engine meets a workload."""

from __future__ import annotations

import contextlib
import datetime
import functools
import gc
import hashlib
import importlib
import json
import os
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.utils.flop_counter import FlopCounterMode

import workloads
from bench import collectives, loop, parity, record, straggler
from bench.engines.base import Batch, Engine, LossFunction, RankContext, ServerContext
from bench.engines.precision import autocast, cast_inputs, cast_module, weight_dtype
from bench.engines.spec import EngineUnsupported
from bench.job import Job, WorkloadSpec
from bench.measure import ceiling, comm, conditions, fake, memory, timeline
from bench.measure import collectives as collectives_by_size
from workloads.base import Workload, WorkloadError

__all__ = ["WorkloadError", "run", "workload"]


UNSTEADY_STEPS = 2
"""Steps before anything is counted: the first update makes optimizer state, and DDP rebuilds its buckets after it."""
WATCHED_STEPS = 3
"""Steps whose peak memory is counted."""
PROFILED_STEPS = 10


def run(job: Job, rank: int, rendezvous: socket.socket) -> dict[str, Any]:
    """Everything that one rank does in one launch; its result in JSON types. Raises what goes wrong."""
    seconds = Stopwatch()
    device = prepare_process(job, rank)
    if job.purpose == "reference":
        return reference(job, device)
    if job.purpose == "resolution":
        return resolution(job, device)
    store = open_store(job, rank, rendezvous)
    if rank >= job.world_size:
        server: dict[str, Any] = adapter(job).serve(job.spec, ServerContext(rank - job.world_size, job.servers, store))
        return server
    join_group(job, rank, device, store)
    seconds.lap("init_s")
    context = RankContext(rank, job.spec.world_size, device, store)
    if job.purpose == "ceiling":
        result = peak(job, context)
    elif job.purpose == "collectives":
        result = collective_times(job, context, seconds)
    elif job.purpose == "check":
        result = check(job, context)
    elif job.purpose == "profile":
        result = profiled(job, context)
    else:
        result = timing(job, context, seconds)
    meet(job, context, "end")  # rank 0 holds the store: nobody leaves before all are done
    return result | {"seconds": seconds.laps}


class Stopwatch:
    """Names for the phases of a rank's life, in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now


def prepare_process(job: Job, rank: int) -> torch.device:
    """Threads, determinism, seeds and the device of this rank; a server stays on the host."""
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.workload.seed)
    random.seed(job.workload.seed)
    numpy.random.seed(job.workload.seed)
    torch.use_deterministic_algorithms(job.deterministic)
    if job.spec.device != "cuda" or rank >= job.world_size:
        return torch.device("cpu")
    torch.backends.cudnn.deterministic = job.deterministic
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
    device = torch.device("cuda", rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    if job.memory_limit_bytes is not None:
        limit_memory(job.memory_limit_bytes, device)
    return device


def limit_memory(limit_bytes: int, device: torch.device) -> None:
    """Bounds what the caching allocator takes. Raises EngineUnsupported for more than the GPU has."""
    total = torch.cuda.get_device_properties(device).total_memory
    if limit_bytes > total:
        raise EngineUnsupported(
            f"memory_limit is {limit_bytes} bytes, but {device} has {total}; valid: at most that, null (all of it)"
        )
    torch.cuda.set_per_process_memory_fraction(limit_bytes / total, device)


def open_store(job: Job, rank: int, rendezvous: socket.socket) -> Store:
    """The store by which the processes of this launch meet, on the socket that the fork server opened."""
    host, port = rendezvous.getsockname()
    store: Store = dist.TCPStore(  # type: ignore[attr-defined]
        host,
        port,
        job.world_size,
        is_master=rank == 0,
        timeout=datetime.timedelta(seconds=job.timeout_s),
        wait_for_workers=False,
        master_listen_fd=os.dup(rendezvous.fileno()) if rank == 0 else None,
    )
    return store


def join_group(job: Job, rank: int, device: torch.device, store: Store) -> None:
    """Initialises the default process group, of all ranks and no server."""
    if job.silent:
        fake.join_group(rank, job.world_size)
        return
    if job.spec.backend == "fake":
        from bench import simulated  # private parts of torch, which nobody else needs

        simulated.join_group(rank, job.spec.world_size)
        return
    dist.init_process_group(
        job.spec.backend,
        store=store,
        rank=rank,
        world_size=job.world_size,
        timeout=datetime.timedelta(seconds=job.timeout_s),
        device_id=device if job.spec.backend == "nccl" else None,
    )


def meet(job: Job, context: RankContext, where: str) -> None:
    """Returns once all ranks are here."""
    if job.silent:
        fake.meet(context.store, context.rank, context.world_size, where)
    else:
        dist.barrier()


def workload(spec: WorkloadSpec) -> Workload:
    """The workload, with its data; loaded once in the fork server and inherited by its ranks."""
    return _load_workload(json.dumps(asdict(spec)))


@functools.lru_cache(maxsize=2)
def _load_workload(spec: str) -> Workload:
    return workloads.load(**json.loads(spec))


def adapter(job: Job) -> ModuleType:
    return importlib.import_module(f"{job.engine}.adapter")


def set_up(job: Job, module: nn.Module, units: list[nn.Module], context: RankContext) -> Engine:
    engine: Engine = adapter(job).create()
    engine.setup(module, units, job.spec, context)
    return engine


def share_of(job: Job, rank: int) -> loop.Share:
    """What a rank trains on; the ranks of one replica train on the same."""
    together = job.ranks_per_replica
    replicas = job.spec.world_size // together
    return loop.Share(rank // together, replicas, job.rank_batch * together, job.spec.accumulate)


def reference_shares(job: Job) -> list[loop.Share]:
    """The shares of all replicas that there are, cut as finely as the engine cuts them."""
    ranks = 1 if job.spec.backend == "fake" else job.spec.world_size
    shares = [share_of(job, rank) for rank in range(0, ranks, job.ranks_per_replica)]
    return [replace(share, accumulate=share.accumulate * job.microbatches) for share in shares]


def batches(job: Job, work: Workload, share: loop.Share, step: int, device: torch.device) -> list[Batch]:
    """A rank's micro-batches of ``step``, on the device."""
    dealt = by_label(work, share.global_batch(step)) if job.data_skew == "labels" else None
    found = []
    for indices in share.micro_batches(step):
        samples: Sequence[int] = [dealt[index] for index in indices] if dealt else indices
        found.append(tuple(entry.to(device) for entry in work.batch(samples)))
    return found


def by_label(work: Workload, indices: range) -> dict[int, int]:
    """Who stands where when the samples of a global batch are sorted by their class labels (one a sample)."""
    labels = work.batch(indices)[-1]
    if labels.dim() != 1 or labels.is_floating_point():
        raise WorkloadError(
            f"data_skew=labels needs one class label a sample; workload={work.info.name} has none. Valid: none, samples"
        )
    order = torch.argsort(labels, stable=True).tolist()
    return {index: indices[position] for index, position in zip(indices, order, strict=True)}


def timing(job: Job, context: RankContext, seconds: Stopwatch) -> dict[str, Any]:
    """Warm-up and measured steps over a pool of batches that exists before the clock starts."""
    rank, device = context.rank, context.device
    engine, pool, loss_fn = ready(job, context)
    watch = conditions.Watch(rank, context.world_size, device)
    seconds.lap("setup_s")
    warmup = loop.timed_steps(engine, pool, steps_of(job, rank, job.warmup), loss_fn, device, join=job.spec.join)
    if job.silent:
        meet(job, context, "measured")  # the barrier of the steps waits for nobody
    seconds.lap("warmup_s")
    watch.begin()
    measured = loop.timed_steps(engine, pool, steps_of(job, rank, job.steps), loss_fn, device, join=job.spec.join)
    observed = watch.end()
    seconds.lap("measured_s")
    engine.teardown()
    samples = record.RankSamples(
        forward_backward_s=measured.forward_backward_s,
        optimizer_s=measured.optimizer_s,
        warmup_step_s=warmup.step_s,
        wall_s=measured.wall_s,
        losses=measured.losses,
        backlog_s=measured.backlog_s,
    )
    return {"samples": asdict(samples)} | observed


def peak(job: Job, context: RankContext) -> dict[str, Any]:
    """What this rank reaches in matrix products, with all others, and what disturbed it."""
    watch = conditions.Watch(context.rank, context.world_size, context.device)
    watch.begin()
    found = ceiling.measure(job.spec.precision, context.device)
    return {"ceiling": asdict(found)} | watch.end()


def collective_times(job: Job, context: RankContext, seconds: Stopwatch) -> dict[str, Any]:
    """``workload=collectives``: the same times on every rank, and what disturbed this one."""
    asked = collectives.asked(job.workload.options)
    watch = conditions.Watch(context.rank, context.world_size, context.device)
    watch.begin()
    found = collectives_by_size.measure(asked, job.steps, job.warmup, context.device)
    observed = watch.end()
    seconds.lap("measured_s")
    return {"collective_times": [asdict(times) for times in found]} | observed


def ready(job: Job, context: RankContext) -> tuple[Engine, list[list[Batch]], LossFunction]:
    """The engine, a pool of batches, and the loss function, slow on a straggler."""
    rank, device = context.rank, context.device
    work = workload(job.workload)
    module = work.build().to(device)
    share = share_of(job, rank)
    pool = [batches(job, work, share, step, device) for step in range(min(job.batch_pool, job.warmup + job.steps))]
    loss_fn: LossFunction = work.loss
    if rank == job.straggler_rank:
        own_s = straggler.compute_s(module, pool[0][0], work.loss, job.spec.precision, device)
        loss_fn = straggler.slowed(work.loss, (job.straggler_factor - 1) * own_s, device)
    return set_up(job, module, work.units(module), context), pool, loss_fn


def profiled(job: Job, context: RankContext) -> dict[str, Any]:
    """What a few steps are made of. Their batches are made within them, as in training."""
    rank, device = context.rank, context.device
    engine, pool, loss_fn = ready(job, context)
    work, share, first = workload(job.workload), share_of(job, rank), max(job.warmup, UNSTEADY_STEPS)
    loop.timed_steps(engine, pool, first, loss_fn, device)
    watch = timeline.Watch(device)
    count = min(job.steps, PROFILED_STEPS)
    loop.profiled_steps(engine, lambda step: batches(job, work, share, first + step, device), count, loss_fn, watch)
    engine.teardown()
    steps = watch.steps()
    of_ranks: list[Any] = [None] * job.world_size
    dist.all_gather_object(of_ranks, [step.issues for step in steps])
    all_meet = job.ranks_per_replica == 1 and job.spec.shard_size is None
    skews = [timeline.skews(issues, rank) if all_meet else None for issues in zip(*of_ranks, strict=True)]
    parts = [
        asdict(timeline.parts(step, skew or [], step_s))
        for step, skew, step_s in zip(steps, skews, watch.step_s(), strict=True)
    ]
    return {"parts": parts, "straggler_known": None not in skews}


def steps_of(job: Job, rank: int, steps: int) -> int:
    """How many steps a rank has; under ``data_skew=samples`` the last one has half."""
    short = job.data_skew == "samples" and rank == job.world_size - 1
    return max(1, steps // 2) if short and steps else steps


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
        watched_step(job, engine, work, counter, micro_batches)
        del micro_batches


def watched_step(
    job: Job, engine: Engine, work: Workload, counter: memory.StepMemory, micro_batches: list[Batch]
) -> None:
    inputs = [entry for batch in micro_batches for entry in batch]
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
    """What this rank calls in one step, after those whose memory was counted."""
    step = max(job.parity_steps, UNSTEADY_STEPS) + WATCHED_STEPS
    micro_batches = batches(job, work, share_of(job, context.rank), step, context.device)
    ledger = comm.Ledger()
    with ledger:
        loop.train_step(engine, micro_batches, work.loss)
    return ledger.lines()


def reference(job: Job, device: torch.device) -> dict[str, Any]:
    """The single process that parity compares with, and what the model is."""
    work = workload(job.workload)
    trained = parity.train_reference(work.build(), global_batches(job, work, device), work.loss, job.spec, device)
    trained.save(Path(job.reference))
    first = [entry for batch in global_batches(job, work, device, steps=1)[0] for entry in batch]
    facts = replace(model_facts(work, digest(first)), activation_bytes=activation_bytes(job, work, device))
    return {"model": asdict(facts)}


def activation_bytes(job: Job, work: Workload, device: torch.device) -> int | None:
    """What one rank's micro-batch leaves for backward, without an engine; None where a rank has a part of a replica."""
    if job.ranks_per_replica > 1 or not job.memory:
        return None
    counter = memory.StepMemory(device)
    with counter:
        module = cast_module(work.build().to(device), job.spec.precision)
        batch = batches(job, work, share_of(job, 0), 0, device)[0]
        with counter.step({"params": list(module.parameters()), "buffers": list(module.buffers())}, batch):
            with autocast(job.spec.precision, device.type):
                loss = work.loss(module, cast_inputs(batch, weight_dtype(job.spec.precision)))
            loss.backward()
    return counter.trace.most_bytes("activations")


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


def model_facts(work: Workload, data_digest: str) -> record.Model:
    """What is trained, counted on a built module rather than typed in."""
    module = work.build()
    owner = {id(weight): index for index, unit in enumerate(work.units(module)) for weight in unit.parameters()}
    parameters = [
        record.Parameter(name, list(weight.shape), weight.requires_grad, owner.get(id(weight), -1))
        for name, weight in module.named_parameters()
    ]
    info = work.info
    return record.Model(
        workload=info.name,
        unit=info.unit,
        units_per_sample=info.units_per_sample,
        flops_per_unit=flops_per_sample(work, module) / info.units_per_sample,
        parameters=parameters,
        buffer_bytes=sum(buffer.nbytes for buffer in module.buffers()),
        data=info.data.description,
        synthetic_data=info.data.synthetic,
        data_digest=data_digest,
    )


def flops_per_sample(work: Workload, module: nn.Module) -> float:
    """Forward and backward operations of matrix products, convolutions and attention, per sample."""
    samples = 2  # BatchNorm needs more than one
    with FlopCounterMode(display=False) as counter:
        work.loss(module, work.batch(range(samples))).backward()
    return float(counter.get_total_flops()) / samples


def digest(tensors: list[Tensor]) -> str:
    """SHA-256 over the bytes of tensors, in order."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
