"""Muon of one bucket of matrices, of which this rank updates a shard.

Momentum is averaged element by element, so each rank keeps and averages its shard, as with any other optimizer. The
matrices' directions need whole matrices. So, where optimizer state is sharded, a step of a bucket is

    average       momentum, of the own shard
    all-gather    the averaged gradients in bf16, in which torch's Muon computes: f·S·2 bytes sent, S elements
    iterate       Newton-Schulz of each matrix of which the own shard has a part
    update        the own shard, by its part of each direction

A matrix that lies in several shards is orthogonalized by each of their ranks, so that directions need not be sent. For
the same averaged gradients, every stage computes the same bits.

Collectives of one backend run in order. At stages 1 and 2 the all-gather of one bucket's gradients waits for that of
the previous bucket's updated parameters, so these do not overlap with the update of matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.engines.muon import matrix_hyperparameters, orthogonalized, scaled_rate
from bench.engines.native.bucket import Bucket
from bench.engines.spec import EngineSpec


class ShardedMuon(torch.optim.Optimizer):
    """torch's Muon over the sharded param of a bucket that has nothing but matrices."""

    def __init__(self, bucket: Bucket, sharded_param: nn.Parameter, spec: EngineSpec) -> None:
        usual = torch.optim.Muon([torch.zeros(1, 1)], lr=spec.lr, **matrix_hyperparameters(spec)).defaults
        super().__init__([sharded_param], usual)
        self._bucket = bucket
        self._is_sharded = sharded_param.numel() < bucket.layout.size
        self._own = bucket.own_elements if self._is_sharded else slice(0, bucket.layout.size)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates the shard by its gradient. Collective where the bucket is sharded."""
        group = self.param_groups[0]
        param: Tensor = group["params"][0]
        averaged = self._gather(self._average(param, group))
        param.mul_(1 - group["lr"] * group["weight_decay"])
        start = self._own.start
        for number, slot in enumerate(self._bucket.layout.slots):
            first, last = max(slot.offset, self._own.start), min(slot.offset + slot.count, self._own.stop)
            if first < last:
                matrix = self._bucket.view_of(averaged, number)
                matrix.copy_(orthogonalized(matrix, group))
                rate = scaled_rate(group, matrix.shape)
                param[first - start : last - start].add_(averaged[first:last], alpha=-rate)

    def _average(self, param: Tensor, group: dict[str, Any]) -> Tensor:
        """Moves the shard's momentum; returns what is orthogonalized: with Nesterov's step ahead."""
        assert param.grad is not None
        state = self.state[param]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(param.grad)
        momentum: Tensor = state["momentum_buffer"]
        momentum.lerp_(param.grad, 1 - group["momentum"])
        return param.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum

    def _gather(self, averaged: Tensor) -> Tensor:
        """The whole bucket in bf16."""
        whole = averaged.new_empty(self._bucket.layout.size, dtype=torch.bfloat16)
        whole[self._own].copy_(averaged)
        if self._is_sharded:
            self._bucket.collectives.all_gather(whole).wait()
        return whole
