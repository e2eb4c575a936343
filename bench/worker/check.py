"""The check launch: parity with the reference, memory of steps, and the collectives of one step."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from bench.engines.base import Batch, Engine, RankContext
from bench.engines.batches import tensors_of
from bench.engines.offload import host_state
from bench.engines.precision import weight_dtype
from bench.job import CheckJob
from bench.measure.communication import ledger
from bench.measure.memory import over_time, snapshot
from bench.measure.memory.host_copies import COPIES, HostCopyCounter, why_not_counted
from bench.measure.memory.other_threads import wait_for_other_threads
from bench.measure.memory.step import StepMemory, gathered_parameters
from bench.rank_results import CheckResult
from bench.worker import loop, parity, updates
from bench.worker.batches import batches, share_of, workload
from bench.worker.engine import UNSTEADY_STEPS, set_up
from bench.worker.feed import loaded
from bench.worker.model import digest
from bench.worker.randomness import seed_generators
from bench.worker.replicas import rank_difference
from bench.worker.single_process import Reference
from bench.worker.trace_files import TraceFiles
from results import launches
from results.parity import Parity
from results.traces import RankTraces
from results.updates import Updates
from workloads.base import Workload

MAX_REPEATS = 8
WATCHED_STEPS = 3
"""Steps whose peak memory is counted."""


def check(job: CheckJob, context: RankContext) -> CheckResult:
    """Parity against the reference, then the memory of steps, then the collectives of one. Nothing here is timed."""
    device = context.device
    counter = StepMemory(device)
    files = TraceFiles(job.traces, context.rank) if job.traces else None
    with (
        snapshot.history(device) if files else contextlib.nullcontext(),
        counter if job.memory else contextlib.nullcontext(),
    ):
        work = workload(job.workload)
        module = work.build().to(device)
        engine = set_up(job, module, work.units(module), context)
        del module
        result = CheckResult(description=engine.describe())
        if job.parity_steps:
            result = replace(result, parity=compare_with_reference(job, engine, work, context))
        if job.memory or job.collectives:
            watched = WatchedSteps(job, engine, work, context)
        if job.memory:
            watched.count_memory(counter)
        if files and device.type == "cuda":
            files.write("snapshot", snapshot.write)
    if job.collectives:
        result = replace(result, collectives=watched.collectives())
    if job.memory or job.collectives:
        result = replace(result, updates=watched.updates())
    why_not = why_not_counted(device.type, job.spec.backend)
    has_copies = job.memory and job.spec.offload != "none"
    copied = watched.copies() if has_copies and not why_not else None
    engine.teardown()
    if job.memory:
        memory = counter.result()
        if has_copies and why_not:
            memory = replace(memory, not_measured=memory.not_measured | {COPIES: why_not})
        result = replace(result, memory=copied.added_to(memory) if copied else memory)
    return replace(result, traces=traces_of(files, counter, context.rank)) if files else result


def traces_of(files: TraceFiles, counter: StepMemory, rank: int) -> RankTraces:
    """The step whose peak is the median, over time, as a file and for the record."""
    step = counter.typical_step()
    files.write("memory", lambda path: over_time.write_counters(counter.trace, step, rank, path))
    return files.result(over_time.timeline(counter.trace, step, rank))


def compare_with_reference(job: CheckJob, engine: Engine, work: Workload, context: RankContext) -> Parity | None:
    """Trains the parity steps with the random numbers that the reference knows, and compares. Collective; the result is
    rank 0's."""
    share = share_of(job, context.rank)
    seed_generators(job)
    feed = loaded(job, context.rank, context.device) if job.loader else None
    reference = None if context.rank else Reference.load(Path(job.reference))
    losses, first = [], None
    for step in range(job.parity_steps):
        micro_batches = feed.take(step) if feed else batches(job, work, share, step, context.device)
        losses.append(loop.train_step(engine, micro_batches, work.loss))
        if step == 0:
            first = errors_of_first_step(job, engine, reference)
    if feed:
        feed.close()
    means = torch.stack(losses).double()
    dist.all_reduce(means)
    means /= job.world_size
    weights = engine.full_state_dict()
    differing = rank_difference(context, weights)
    if reference is None:
        return None
    limit = parity.tolerance(job.spec.precision, job.spec.compression, partial_sums=job.partial_sums)
    compared = parity.compare(reference, means.tolist(), weights, job.spec.precision, limit, first=first)
    if differing:
        compared = parity.with_rank_difference(compared, reference, differing, weight_dtype(job.spec.precision))
    return replace(compared, weights_digest=digest([weights[name] for name in sorted(weights)]))


def errors_of_first_step(job: CheckJob, engine: Engine, reference: Reference | None) -> dict[str, float] | None:
    """By tensor; collective, and rank 0's. The random numbers of the next step do not depend on it."""
    weights = engine.full_state_dict()
    if reference is None:
        return None
    return parity.tensor_errors(weights, reference.first, reference.initial, weight_dtype(job.spec.precision))


def watched_step(
    job: CheckJob, engine: Engine, work: Workload, counter: StepMemory, micro_batches: list[Batch]
) -> None:
    inputs = [entry for batch in micro_batches for entry in tensors_of(batch)]
    with watched_parameters(job), counter.step(engine.state(), inputs, host_state(engine)):
        for index, batch in enumerate(micro_batches):
            counter.forward()
            engine.forward_backward(batch, work.loss, sync=index == len(micro_batches) - 1)
        counter.between(engine.state(), host_state(engine))
        engine.optimizer_step()


def watched_parameters(job: CheckJob) -> contextlib.AbstractContextManager[None]:
    """A compiled module has no hooks that could watch them."""
    return contextlib.nullcontext() if job.spec.compile else gathered_parameters()


class WatchedSteps:
    """The steps after parity. A step whose update loss scaling skips is watched again, up to ``MAX_REPEATS`` times."""

    def __init__(self, job: CheckJob, engine: Engine, work: Workload, context: RankContext) -> None:
        """Takes the steps that are not watched: the unsteady ones, and those until the loss scale has settled."""
        self._job, self._engine, self._work, self._device = job, engine, work, context.device
        self._share = share_of(job, context.rank)
        self._next = job.parity_steps
        self._steps = self._skipped = 0
        while self._next < UNSTEADY_STEPS:
            self._train()
        settling = updates.settle(engine, self._device, lambda _: self._train())
        self._watch = updates.UpdateWatch(engine, settling)

    def _batches(self) -> list[Batch]:
        self._next += 1
        return batches(self._job, self._work, self._share, self._next - 1, self._device)

    def _train(self) -> None:
        loop.train_step(self._engine, self._batches(), self._work.loss)

    def count_memory(self, counter: StepMemory) -> None:
        """Counts whole steps, with what is in memory when each begins and between its backward and update."""
        for _ in range(WATCHED_STEPS):
            self._until_updated(lambda: self._count_step(counter), counter.forget)

    def _count_step(self, counter: StepMemory) -> None:
        micro_batches = self._batches()
        gc.collect()
        wait_for_other_threads()
        watched_step(self._job, self._engine, self._work, counter, micro_batches)

    def collectives(self) -> list[launches.Collective]:
        """The collectives of this rank in one step; with ``local_steps``, in that many."""
        ledgers = [ledger.Ledger()]

        def step() -> None:
            for _ in range(self._job.spec.local_steps):
                micro_batches = self._batches()
                with ledgers[-1]:
                    loop.train_step(self._engine, micro_batches, self._work.loss)

        self._until_updated(step, lambda: ledgers.append(ledger.Ledger()))
        return ledgers[-1].lines()

    def copies(self) -> HostCopyCounter:
        """The copies of this rank between device and host in one step."""
        counts = [HostCopyCounter(self._device.type, host_state(self._engine))]

        def step() -> None:
            micro_batches = self._batches()
            with counts[-1]:
                loop.train_step(self._engine, micro_batches, self._work.loss)

        self._until_updated(step, lambda: counts.append(HostCopyCounter(self._device.type, host_state(self._engine))))
        return counts[-1]

    def _until_updated(self, step: Callable[[], None], forget: Callable[[], None]) -> None:
        """Takes the step, again after ``forget`` if its update was skipped."""
        self._steps += 1
        for _ in range(MAX_REPEATS):
            if updates.is_updated(self._engine, self._device, step):
                return
            forget()
        self._skipped += not updates.is_updated(self._engine, self._device, step)

    def updates(self) -> Updates:
        return replace(self._watch.result(self._steps), skipped=self._skipped)
