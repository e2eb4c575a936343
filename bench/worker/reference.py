"""The reference of parity: one process, no engine, the micro-batches of all ranks; and the noise of that process."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.engines.base import Batch
from bench.engines.batches import tensors_of
from bench.engines.precision import AUTOCAST, autocast, cast_inputs, weight_dtype
from bench.engines.whole_loss import first_use
from bench.job import NoiseJob, ReferenceJob, SingleProcessJob
from bench.rank_results import NoiseResult, ReferenceResult
from bench.worker import loop, parity
from bench.worker.batches import batches, share_of, workload
from bench.worker.loss_trace import LossTrace
from bench.worker.model import compute_memory, digest, model_facts
from bench.worker.own_state import OwnState, check_synchronized_norms, synchronized_norms
from bench.worker.preconditions import checked_module, in_eval_mode
from bench.worker.randomness import Generators, State, differ, owners_of, seed_generators
from bench.worker.reached import Reached
from bench.worker.reads import read_outside
from bench.worker.single_process import (
    Reference,
    Shadow,
    SingleProcessTraining,
    Weights,
    nudge,
    rounding,
    train_reference,
)
from results.model import StepProperties
from results.parity import ByTensor, Noise
from workloads.base import Workload

DRAWS = 4
"""Trainings that measure noise: half of them of the reduction alone."""
SUMMED_OTHERWISE = 4
"""Rounding units by which sums of gradients in another order may differ."""
NOISE_OF_A_ZERO = 0.3
"""Share of a gradient that differs between draws, from which on it is nothing but rounding."""
SMALL = {torch.float32: 1e-3, torch.bfloat16: 0.02, torch.float16: 5e-3}
"""Root mean square of such a gradient, over the median of all, by the dtype of computation: at most a few units."""


def reference(job: ReferenceJob, device: torch.device) -> ReferenceResult:
    """Trains the single process that parity compares with, and counts the model."""
    work = workload(job.workload)
    module = checked_module(work, job.workload.called, job.spec.precision)
    check_synchronized_norms(module, job.workload.called, device.type)
    eval_mode, norms = in_eval_mode(module), synchronized_norms(module)
    units = work.units(module)
    in_units = {id(weight) for unit in units for weight in unit.parameters()}
    root = {name for name, weight in module.named_parameters() if id(weight) not in in_units}
    reached, trace, steps = Reached(module), LossTrace(module, units), GlobalSteps(job, work, module, device)
    own = OwnState(module)
    loss_fn = own.watching(trace.watching(reached.watching(work.loss)))
    trained = train_reference(module, steps, loss_fn, job.spec, device)
    own.check_trained(job.workload.called)
    trained.reference.save(Path(job.reference))
    shares = reference_shares(job)
    first = [entry for share in shares for batch in batches(job, work, share, 0, device) for entry in tensors_of(batch)]
    bypasses = first_use(work.loss, work.batch(range(1)))
    wrapped = root if bypasses else set()  # engines then wrap the whole loss, and the root's forward is all of it
    seen = {*trace.used_outside, *wrapped}
    facts = replace(
        model_facts(work, digest(first), job.spec.precision, job.spec.checkpointing),
        compute_memory=compute_memory(job, work, device),
        step=StepProperties(
            skipped=reached.skipped(),
            differentiates=trace.differentiates,
            used_outside=[name for name in trace.used_outside if name not in wrapped],
            used_early=[name for name in trace.used_early if name not in wrapped],
            used_bare=trace.used_bare,
            in_threads=trace.in_threads,
            read_outside=[name for name in read_outside(module, units, steps.same_loss(module)) if name not in seen],
            eval_mode=eval_mode,
            own_buffers=own.buffers(steps.same_loss(module)),
            rank_queries=own.queries,
            synchronized_norms=norms,
            uneven=reached.uneven(len(shares), shares[0].accumulate),
            random=steps.drew,
            first_use=bypasses,
        ),
    )
    return ReferenceResult(model=facts)


def noise(job: NoiseJob, device: torch.device) -> NoiseResult:
    """Errors of the reference against itself, of draws that are rounded otherwise, and of unreduced tensors."""
    against = Reference.load(Path(job.reference))
    work, shares = workload(job.workload), reference_shares(job)
    own = shares[0].accumulate if len(shares) > 1 else 1
    several = len(shares) * shares[0].accumulate > 1
    dtype = weight_dtype(job.spec.precision)

    of_workload = Generators(device, [work])
    begun = of_workload.states()

    def train(seed: int | None, nudged: bool = False) -> SingleProcessTraining:
        of_workload.restore(begun)
        module = work.build()
        if nudged and seed is not None:
            nudge(module, dtype, seed)
        disturb = None if seed is None else rounding(reduction_eps(job), seed)
        steps = GlobalSteps(job, work, module, device)
        return train_reference(
            module, steps, work.loss, job.spec, device, disturb=disturb, share=own if several and seed is None else 0
        )

    again = train(None)
    errors, losses, zeros = [], [], small_gradients(again.gradients, job.spec.precision)
    for index in range(DRAWS):
        nudged = 2 * index >= DRAWS
        draw = train(job.workload.seed + index, nudged)
        errors.append(draw_errors(draw.reference, against, dtype))
        losses.append(parity.loss_error(draw.reference.losses, against.losses))
        if nudged:  # the others compute the same gradient
            zeros = [name for name in zeros if is_noise(again.gradients[name], draw.gradients[name])]
    measured = Noise(
        reduction=largest(errors[: DRAWS // 2]),
        computation=largest(errors[DRAWS // 2 :]),
        fault=fault_errors(again.shadow, against, dtype) if several else {},
        loss=nan_max(losses),
        zero_gradients=zeros,
        unrepeatable=unrepeatable(again.reference, against, job.spec.precision),
    )
    return NoiseResult(noise=measured)


class GlobalSteps:
    """The parity steps of all ranks; each share's micro-batches are made and trained on with its own random numbers."""

    def __init__(self, job: SingleProcessJob[Any], work: Workload, module: nn.Module, device: torch.device) -> None:
        self._job, self._work, self._device = job, work, device
        self._shares = reference_shares(job)
        seed_generators(job)
        self._generators = Generators(device, owners_of(work, module))
        begin = self._generators.states()
        self._begin = begin
        self._states: list[State] = [begin for _ in self._shares]

    def __iter__(self) -> Iterator[GlobalStep]:
        """At least one step: what engines cannot follow is seen while it is trained."""
        return (GlobalStep(self, step) for step in range(max(1, self._job.parity_steps)))

    @property
    def drew(self) -> bool:
        """Whether training has drawn random numbers."""
        return differ(self._begin, self._states[0])

    def same_loss(self, module: nn.Module) -> Callable[[], Tensor]:
        """Computes the loss of the first micro-batch, with the same random numbers each time."""

        def loss() -> Tensor:
            self._generators.restore(self._begin)
            batch = batches(self._job, self._work, self._shares[0], 0, self._device)[0]
            with autocast(self._job.spec.precision, self._device.type):
                return self._work.loss(module, cast_inputs(batch, weight_dtype(self._job.spec.precision)))

        return loss

    @property
    def micro_batches(self) -> int:
        return sum(share.accumulate for share in self._shares)

    def visit(self, step: int) -> Iterator[Batch]:
        """The micro-batches of one step, share after share. What is done before the next one is requested counts as
        done by the share's rank."""
        for index, share in enumerate(self._shares):
            self._generators.restore(self._states[index])
            yield from batches(self._job, self._work, share, step, self._device)
            self._states[index] = self._generators.states()


class GlobalStep:
    """A step's micro-batches, to be visited once."""

    def __init__(self, steps: GlobalSteps, step: int) -> None:
        self._steps, self._step = steps, step

    def __len__(self) -> int:
        return self._steps.micro_batches

    def __iter__(self) -> Iterator[Batch]:
        return self._steps.visit(self._step)


def reference_shares(job: SingleProcessJob[Any]) -> list[loop.Share]:
    """The shares of all replicas that there are, cut as finely as the engine cuts them."""
    ranks = 1 if job.spec.backend == "fake" else job.spec.world_size
    shares = [share_of(job, rank) for rank in range(0, ranks, job.ranks_per_replica)]
    return [replace(share, accumulate=share.accumulate * job.microbatches) for share in shares]


def reduction_eps(job: NoiseJob) -> float:
    """By how much of itself a reduced gradient may be rounded otherwise."""
    spec = job.spec
    dtype = weight_dtype(spec.precision)
    if spec.compression in ("bf16", "fp16"):
        dtype = torch.bfloat16 if spec.compression == "bf16" else torch.float16
    elif job.partial_sums:
        dtype = AUTOCAST.get(spec.precision, dtype)
    return SUMMED_OTHERWISE * torch.finfo(dtype).eps if dtype == torch.float32 else torch.finfo(dtype).eps


def draw_errors(draw: Reference, against: Reference, dtype: torch.dtype) -> ByTensor:
    """Of a draw, by how far it moved from where it began: that it began elsewhere is no error."""

    def at(weights: Weights, right: Weights, name: str) -> float:
        begun = against.initial[name].double()
        off = weights[name].double() - draw.initial[name].double() - (right[name].double() - begun)
        return parity.tensor_error(off, right[name], begun, dtype)

    return {name: [at(draw.first, against.first, name), at(draw.final, against.final, name)] for name in against.final}


def fault_errors(shadow: Shadow, against: Reference, dtype: torch.dtype) -> ByTensor:
    """Of each tensor, as if its gradient alone were not reduced; a frozen one cannot be."""
    ends = [(shadow.first, against.first), (shadow.final, against.final)]
    errors_by_end = [
        parity.tensor_errors(weights, {name: right[name] for name in weights}, against.initial, dtype)
        for weights, right in ends
    ]
    return {name: [errors[name] for errors in errors_by_end] for name in errors_by_end[0]}


def largest(draws: list[ByTensor]) -> ByTensor:
    return {name: [nan_max([draw[name][point] for draw in draws]) for point in (0, 1)] for name in draws[0]}


def nan_max(values: list[float]) -> float:
    return math.nan if any(map(math.isnan, values)) else max(values)


def small_gradients(gradients: Weights, precision: str) -> list[str]:
    """Tensors whose first gradient is so small among all that it may be nothing but rounding."""
    sizes = {name: float(gradient.double().square().mean().sqrt()) for name, gradient in gradients.items()}
    positive = [size for size in sizes.values() if size > 0]
    most = SMALL[AUTOCAST.get(precision, weight_dtype(precision))] * statistics.median(positive or [0.0])
    return [name for name, size in sizes.items() if 0 < size <= most]


def is_noise(gradient: Tensor, drawn: Tensor) -> bool:
    """Whether a gradient is another in a draw: the true one is zero.

    So are a bias before BatchNorm and the bias of attention's keys. Adam makes updates of full size of them.
    """
    mine = gradient.double()
    return float((drawn.double() - mine).norm()) >= NOISE_OF_A_ZERO * float(mine.norm())


def unrepeatable(again: Reference, against: Reference, precision: str) -> str:
    """What two equal runs differ in by more than parity tolerates, in words; empty if they agree."""
    errors = parity.tensor_errors(again.final, against.final, against.initial, weight_dtype(precision))
    name = max(errors, key=lambda name: math.inf if math.isnan(errors[name]) else errors[name])
    if errors[name] <= parity.TOLERANCE[precision]:
        return ""
    return (
        f"the single process is not repeatable: two equal runs of it differ in {name} by {errors[name]:.2g} of what "
        "training moved it. Does the model draw on something that is not seeded, or keep state outside its parameters?"
    )
