"""The trained model, counted on the built module: parameters, operations, activations, digests."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from bench.engines.activation_checkpointing import checkpoint_units
from bench.engines.batches import tensors_of
from bench.engines.muon import hidden_matrices
from bench.engines.precision import autocast, cast_inputs, cast_module, narrow_parameter, weight_dtype
from bench.job import ReferenceJob
from bench.measure import flops
from bench.measure.memory import step
from bench.worker.batches import batches, share_of
from results import model
from workloads.base import Workload


def model_facts(work: Workload, data_digest: str, precision: str, checkpointing: str = "none") -> model.Model:
    """What is trained, counted on a built module rather than typed in; buffers as ``precision`` has them."""
    module = work.build()
    dtypes = {name: str(weight.dtype).removeprefix("torch.") for name, weight in module.named_parameters()}
    is_cast = bool(narrow_parameter(module))
    if is_cast:
        module = cast_module(module, precision)
    owner = {id(weight): index for index, unit in enumerate(work.units(module)) for weight in unit.parameters()}
    matrices = hidden_matrices(module)
    parameters = [
        model.Parameter(
            name,
            list(weight.shape),
            weight.requires_grad,
            owner.get(id(weight), -1),
            dtypes[name],
            id(weight) in matrices,
        )
        for name, weight in module.named_parameters()
    ]
    info = work.info
    inputs = weight_dtype(precision) if is_cast else torch.float32
    operations, uncounted = flops_per_sample(work, module, inputs)
    again = 0.0
    if checkpointing != "none":
        checkpoint_units(work.units(module), checkpointing)
        again = flops_per_sample(work, module, inputs)[0] - operations
    module = cast_module(module, precision)
    return model.Model(
        workload=info.name,
        unit=info.unit,
        units_per_sample=info.units_per_sample,
        flops_per_unit=operations / info.units_per_sample,
        recomputed_flops_per_unit=again / info.units_per_sample,
        uncounted_operators=uncounted,
        parameters=parameters,
        buffer_bytes=sum(part.nbytes for buffer in module.buffers() for part in step.stored(buffer)),
        data=info.data.description,
        synthetic_data=info.data.synthetic,
        data_digest=data_digest,
    )


def flops_per_sample(
    work: Workload, module: nn.Module, inputs: torch.dtype = torch.float32
) -> tuple[float, dict[str, int]]:
    """Forward and backward operations of matrix products, convolutions and attention, per sample; and how often an
    operator was called that multiplies and has no formula, by name.

    Without oneDNN, whose fused recurrent layers hide which gradients are needed.
    """
    samples = 2  # BatchNorm needs more than one
    counter = flops.Counter()
    with torch.backends.mkldnn.flags(enabled=False), counter:
        work.loss(module, cast_inputs(work.batch(range(samples)), inputs)).backward()
    return counter.flops / samples, counter.uncounted


def compute_memory(job: ReferenceJob, work: Workload, device: torch.device) -> model.ComputeMemory | None:
    """A micro-batch's memory in addition to model state, without an engine; None where a rank has a part of a replica.

    Units are checkpointed as the engine's are.
    A gradient is released as soon as it is accumulated, as by an engine that copies it into a bucket.
    """
    if job.ranks_per_replica > 1 or not job.memory:
        return None
    counter = step.StepMemory(device)
    with counter:
        module = cast_module(work.build().to(device), job.spec.precision)
        checkpoint_units(work.units(module), job.spec.checkpointing)
        for weight in module.parameters():
            if weight.requires_grad:
                weight.register_post_accumulate_grad_hook(release_gradient)
        micro_batches = batches(job, work, share_of(job, 0), 0, device)
        state: dict[str, list[Tensor]] = {"params": list(module.parameters()), "buffers": list(module.buffers())}
        with counter.step(state, [entry for batch in micro_batches for entry in tensors_of(batch)]):
            with autocast(job.spec.precision, device.type):
                loss = work.loss(module, cast_inputs(micro_batches[0], weight_dtype(job.spec.precision)))
            loss.backward()
    trace = counter.trace
    most = trace.largest_together(("activations", "temporaries", "unreduced"))
    return model.ComputeMemory(
        activation_bytes=most["activations"],
        temporary_bytes=most["temporaries"],
        handover_bytes=most["unreduced"],
        batch_bytes=trace.rest_by_kind(trace.steps[-1]).get("batch", 0),
    )


def release_gradient(weight: Tensor) -> None:
    weight.grad = None


def digest(tensors: list[Tensor]) -> str:
    """SHA-256 over the bytes of tensors, in order."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
