"""What is trained, counted on the built module: parameters, operations, activations, digests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench import record
from bench.engines.precision import autocast, cast_inputs, cast_module, weight_dtype
from bench.job import Job
from bench.measure import memory
from bench.worker.shares import batches, share_of
from workloads.base import Workload


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
        buffer_bytes=sum(part.nbytes for buffer in module.buffers() for part in memory.stored(buffer)),
        data=info.data.description,
        synthetic_data=info.data.synthetic,
        data_digest=data_digest,
    )


def flops_per_sample(work: Workload, module: nn.Module) -> float:
    """Forward and backward operations of matrix products, convolutions and attention, per sample.

    Without oneDNN, whose fused recurrent layers are no operators that the counter knows.
    """
    samples = 2  # BatchNorm needs more than one
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with torch.backends.mkldnn.flags(enabled=False), counter:
        work.loss(module, work.batch(range(samples))).backward()
    return float(counter.get_total_flops()) / samples


def convolution_backward(
    gradient: Sequence[int], inputs: Sequence[int], weight: Sequence[int], *settings: Any, **more: Any
) -> int:
    """Operations of a convolution's backward, from shapes: of the forward, for each of the two gradients asked for.

    torch counts the weight's gradient as if there were one group. A weight is (out, in/groups, *kernel), transposed
    (in, out/groups, *kernel); each of its elements is used at every place of the output, transposed of the input.
    """
    transposed, wanted = settings[4], settings[7]
    places = prod(inputs[2:] if transposed else gradient[2:])
    return 2 * inputs[0] * places * prod(weight) * sum(map(bool, wanted[:2]))


def attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **more: Any) -> int:
    """Operations of fused attention, from shapes (..., length, width): scores, and their sums of values."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def attention_backward(
    gradient: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **more: Any
) -> int:
    """Two gradients for each product of forward; scores that it computes again are not the model's."""
    return 2 * attention(query, key, value)


FORMULAS = {
    torch.ops.aten.convolution_backward: convolution_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}
"""In place of torch's own, or where it has none."""


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


def digest(tensors: list[Tensor]) -> str:
    """SHA-256 over the bytes of tensors, in order."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
