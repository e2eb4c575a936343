"""Plain replicas with one fault each (the option ``fault``)."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.engines.base import Batch, Engine, LossFunction, RankContext
from bench.engines.optimizers import build_optimizer
from bench.engines.precision import autocast, cast_inputs, weight_dtype
from bench.engines.spec import EngineSpec
from results.resolved import EngineDescription


class WrongEngine:
    """``fault``: none; in all tensors: unreduced, summed, first_rank_only, last_micro_batch, stale; in some: biases,
    one_tensor, bucket_twice, bucket_lost, and as a sharded engine: shard_unreduced, shard_stale, shard_shifted,
    shard_scaled; in one rank: stale_rank; no update: never_steps; extra_all_reduce, extra_buffer, unrepeatable."""

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        self.spec, self.context = spec, context
        self.fault = spec.options["fault"]
        self.module = module.to(weight_dtype(spec.precision))
        self.named = dict(self.module.named_parameters())
        self.weights = list(self.named.values())
        names = list(self.named)
        self.bucket = names[: max(1, len(names) // 4)]  # the last one that backward fills
        self.optimizer = build_optimizer(spec, self.weights)
        self.previous: list[Tensor] | None = None
        self.steps = 0
        self.buffer = torch.zeros(1000 if self.fault == "extra_buffer" else 0)

    def forward_backward(self, batch: Batch, loss_fn: LossFunction, *, sync: bool) -> Tensor:
        if self.fault == "last_micro_batch":
            self.optimizer.zero_grad()
        with autocast(self.spec.precision, "cpu"):
            loss = loss_fn(self.module, cast_inputs(batch, weight_dtype(self.spec.precision)))
        own = {name: self.named[name].grad for name in self.bucket}
        before = {name: gradient if gradient is None else gradient.clone() for name, gradient in own.items()}
        (loss / self.spec.accumulate).backward()
        for name, gradient in before.items():
            if self.fault == "bucket_lost" and sync:
                self.named[name].grad = gradient
            if self.fault == "bucket_twice" and not sync:
                dist.all_reduce(self.named[name].grad)
        return loss.detach()

    def optimizer_step(self) -> None:
        reduced = {name: weight.grad for name, weight in self.named.items() if weight.grad is not None}
        gradients = list(reduced.values())
        own_gradients = flat(gradients) if self.fault == "shard_unreduced" else None
        if self.fault != "unreduced":
            self._reduce([gradient for name, gradient in reduced.items() if not self._skipped(name)])
        if self.fault == "unrepeatable":  # as an order of arrival would: off in the last bit, otherwise in each run
            for gradient in gradients:
                gradient *= 1 + int.from_bytes(os.urandom(1)) / 255 * 2**-20
        if self.fault == "extra_all_reduce":
            dist.all_reduce(gradients[0].clone())
        if self.fault == "stale":
            now = [gradient.clone() for gradient in gradients]
            for gradient, earlier in zip(gradients, self.previous or now, strict=True):
                gradient.copy_(earlier)
            self.previous = now
        self._wrong_shard(gradients, own_gradients)
        kept = [weight.detach().clone() for weight in self.weights]
        if self.fault != "never_steps" and (self.fault != "stale_rank" or self.context.rank == 0):
            self.optimizer.step()
        if self.fault == "shard_stale" and self.steps:  # gathered before it was updated
            shard = last_shard(self.weights, self.context.world_size)
            write(self.weights, torch.where(shard, flat(kept), flat(self.weights)))
        self.steps += 1
        self.optimizer.zero_grad()

    def _wrong_shard(self, gradients: list[Tensor], own_gradients: Tensor | None) -> None:
        """Put the fault into the part of the flat gradient that the last rank would own.

        ``own_gradients``: flat, this rank's before the reduction; only for ``shard_unreduced``.
        """
        if not self.fault.startswith("shard_"):
            return
        own, size = flat(gradients), self.context.world_size
        shard = last_shard(gradients, size)
        if own_gradients is not None:
            dist.broadcast(own_gradients, size - 1)
            write(gradients, torch.where(shard, own_gradients, own))
        if self.fault == "shard_shifted":  # as by an element of padding that is taken for data
            write(gradients, torch.where(shard, own.roll(1), own))
        if self.fault == "shard_scaled":  # as by a mean over the padded elements
            write(gradients, torch.where(shard, own * 0.9, own))

    def _skipped(self, name: str) -> bool:
        if self.fault == "biases":
            return name.endswith("bias")
        return self.fault == "one_tensor" and name == list(self.named)[len(self.named) // 2]

    def _reduce(self, gradients: list[Tensor]) -> None:
        for gradient in gradients:
            if self.fault == "first_rank_only":
                dist.broadcast(gradient, 0)
                continue
            dist.all_reduce(gradient)
            if self.fault != "summed":
                gradient /= self.context.world_size

    def state(self) -> dict[str, list[Tensor]]:
        return {"params": list(self.weights)}

    def full_state_dict(self) -> dict[str, Tensor]:
        return {name: weight.detach() for name, weight in self.module.named_parameters()}

    def describe(self) -> EngineDescription:
        return {}

    def teardown(self) -> None: ...


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def last_shard(tensors: list[Tensor], ranks: int) -> Tensor:
    """Which elements of the flat tensor the last of ``ranks`` would own."""
    count = sum(tensor.numel() for tensor in tensors)
    return torch.arange(count) >= count - count // ranks


def write(tensors: list[Tensor], values: Tensor) -> None:
    with torch.no_grad():
        for tensor, part in zip(tensors, values.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def create() -> Engine:
    return WrongEngine()
