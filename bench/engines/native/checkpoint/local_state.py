"""A rank's part of the state, by parameter and element: views of its shards, of optimizer state and of buffers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.engines.native.bucket import Bucket
from bench.engines.views import dense_strides, flat

if TYPE_CHECKING:
    from bench.engines.native.adapter import NativeEngine

WEIGHT = "weight"


@dataclass(frozen=True)
class LocalParameter:
    """A parameter of the module."""

    shape: list[int]
    dtype: str
    trained: bool
    strides: list[int]
    """Of its elements in memory, in whose order they are saved."""


@dataclass(frozen=True)
class Part:
    """Elements of a parameter from ``start`` on, in the order of memory, in views of this rank's tensors."""

    name: str
    start: int
    tensors: dict[str, Tensor]

    @property
    def stop(self) -> int:
        return self.start + self.tensors[WEIGHT].numel()


def parameters_of(engine: NativeEngine) -> dict[str, LocalParameter]:
    """All parameters, in the dtypes in which they are saved."""
    tensors: dict[str, Tensor] = dict(engine.names)
    dtypes = {name: parameter.dtype for name, parameter in tensors.items()}
    for bucket in engine.buckets:
        for name, view in zip(names_in(engine, bucket), bucket.views, strict=True):
            tensors[name], dtypes[name] = view, weights_of(engine, bucket).dtype
    return {
        name: LocalParameter(
            shape=list(tensor.shape),
            dtype=str(dtypes[name]).removeprefix("torch."),
            trained=engine.names[name].requires_grad,
            strides=list(dense_strides(tensor)),
        )
        for name, tensor in tensors.items()
    }


def names_in(engine: NativeEngine, bucket: Bucket) -> list[str]:
    names = {id(parameter): name for name, parameter in engine.names.items()}
    return [names[id(parameter)] for parameter in bucket.parameters]


def bucket_parts(engine: NativeEngine, *, own: bool) -> Iterator[Part]:
    """The elements that this rank keeps of each parameter in a bucket; with ``own``, only those that it owns."""
    for bucket in engine.buckets:
        tensors = {WEIGHT: weights_of(engine, bucket), **state_tensors(engine, bucket)}
        is_shard = bucket.sharded_param.numel() < bucket.layout.size
        kept = bucket.own_elements if is_shard else slice(0, bucket.layout.size)
        wanted = bucket.own_elements if own else kept
        for name, slot in zip(names_in(engine, bucket), bucket.layout.slots, strict=True):
            start, stop = max(slot.offset, wanted.start), min(slot.offset + slot.count, wanted.stop)
            if start < stop:
                place = slice(start - kept.start, stop - kept.start)
                yield Part(name, start - slot.offset, {key: tensor[place] for key, tensor in tensors.items()})


def unbucketed_parts(engine: NativeEngine, *, own: bool) -> Iterator[Part]:
    """The same for parameters in no bucket: frozen ones, where parameters are not sharded."""
    bucketed = {name for bucket in engine.buckets for name in names_in(engine, bucket)}
    rank, ranks = (engine.context.rank, engine.context.world_size) if own else (0, 1)
    for name, parameter in engine.names.items():
        start, stop = parameter.numel() * rank // ranks, parameter.numel() * (rank + 1) // ranks
        if name not in bucketed and start < stop:
            yield Part(name, start, {WEIGHT: flat(parameter.detach())[start:stop]})


def weights_of(engine: NativeEngine, bucket: Bucket) -> Tensor:
    """What is trained of the bucket: with offload, the weights on the host."""
    return next((entry.place.weights for entry in engine.optimizers if entry.bucket is bucket), bucket.sharded_param)


def optimizer_state(engine: NativeEngine, bucket: Bucket) -> dict[str, Tensor]:
    """The entries of torch's optimizer for the bucket's shard."""
    for entry in engine.optimizers:
        if entry.bucket is bucket:
            state = entry.optimizer.state.get(entry.sharded_param, {})
            return {key: value for key, value in state.items() if isinstance(value, Tensor)}
    return {}


def state_tensors(engine: NativeEngine, bucket: Bucket) -> dict[str, Tensor]:
    """The entries that have an element per element of the shard."""
    return {key: value for key, value in optimizer_state(engine, bucket).items() if value.dim() > 0}


def persistent_buffers(engine: NativeEngine) -> dict[str, Tensor]:
    transient = {
        f"{path}.{name}" if path else name
        for path, module in engine.module.named_modules()
        for name in module._non_persistent_buffers_set
    }
    return {name: buffer for name, buffer in engine.module.named_buffers() if name not in transient}


def random_generators(engine: NativeEngine) -> dict[str, Tensor]:
    cuda = engine.context.device.type == "cuda"
    return {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state(engine.context.device)} if cuda else {})
