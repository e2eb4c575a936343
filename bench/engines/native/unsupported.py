"""Checks at setup: modules that the engine cannot train."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from bench.engines.native.policy import ShardingPolicy
from bench.engines.spec import EngineUnsupported
from bench.engines.unsupported import reject_hooked, reject_sparse


def reject_module(module: nn.Module, policy: ShardingPolicy) -> None:
    """Raises EngineUnsupported, naming the part of ``module`` that cannot be trained."""
    reject_sparse("native", module)
    reject_hooked("native", module)
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm is not None:
            raise EngineUnsupported(
                f"engine=native: {name or 'the module'} rewrites its weights in forward (max_norm={part.max_norm}), "
                "which differs with the samples of each rank"
            )
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.UninitializedParameter):
            raise EngineUnsupported(f"engine=native: {name} is not initialised (lazy module); run it once first")
        if parameter.is_complex() or parameter.is_meta or parameter.layout != torch.strided:
            raise EngineUnsupported(
                f"engine=native: {name} is {parameter.dtype} {parameter.layout} on {parameter.device}; "
                "parameters must be real, dense and on the device"
            )
    for name, buffer in module.named_buffers():
        if buffer.layout != torch.strided:
            raise EngineUnsupported(f"engine=native: the buffer {name} is {buffer.layout}; buffers must be dense")
        if policy.shard_parameters and isinstance(buffer, nn.Parameter):
            raise EngineUnsupported(
                f"engine=native at stage=3: {name} is a parameter among the buffers; its reads cannot be intercepted"
            )
    reject_shared_memory(module)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise EngineUnsupported("engine=native: the module has no parameter that requires a gradient")


def reject_shared_memory(module: nn.Module) -> None:
    """Raises EngineUnsupported for tensors that share memory: a parameter gets memory of its own in a bucket."""
    parameters = dict(module.named_parameters())
    parameter_ids = {id(parameter) for parameter in parameters.values()}
    others = {name: buffer for name, buffer in module.named_buffers() if id(buffer) not in parameter_ids}
    extents = sorted(
        (*extent(tensor), name)
        for name, tensor in (parameters | others).items()
        if tensor.numel() and not tensor.is_meta
    )
    for (storage, _, end, one), (other_storage, begin, _, other) in pairwise(extents):
        if storage == other_storage and begin < end and (one in parameters or other in parameters):
            raise EngineUnsupported(f"engine=native: {one} and {other} share memory, but are not the same parameter")


def extent(tensor: Tensor) -> tuple[int, int, int]:
    """The address of the tensor's storage, and of its first byte and the one after its last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    begin = tensor.data_ptr()
    return tensor.untyped_storage().data_ptr(), begin, begin + (last + 1) * tensor.itemsize
