"""The update: one torch optimizer per bucket, over the shard that this rank owns.

Gradients arrive summed over ranks. What still has to be divided out (the mean over ranks where it was not folded into
the loss, the loss scale, clipping) is one factor, applied to the shards in one pass, or in none where it is 1.
The global norm is that of all ranks' shards at every stage, also at stage 0, where each rank has them all: one scalar
is reduced, and a result that is not finite makes every rank skip the same step.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.engines.native.collectives import Collectives
from bench.engines.native.gradients import BucketGradients
from bench.engines.native.policy import ShardingPolicy
from bench.engines.optimizers import FUSED, build_optimizer
from bench.engines.scaling import LossScaling
from bench.engines.spec import EngineSpec

GROWTH_INTERVAL = 2000
"""Good steps after which the loss scale is doubled, as torch's GradScaler does."""


class LossScale:
    """Dynamic loss scaling (Micikevicius et al., Mixed Precision Training, ICLR 2018, section 3.2)."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.value = 2.0**16 if enabled else 1.0
        self.good_steps = 0

    def update(self, *, skipped: bool) -> None:
        if not self.enabled:
            return
        self.good_steps = 0 if skipped else self.good_steps + 1
        if skipped:
            self.value /= 2
        elif self.good_steps == GROWTH_INTERVAL:
            self.value, self.good_steps = self.value * 2, 0

    def read(self) -> LossScaling | None:
        return LossScaling(self.value, self.good_steps, GROWTH_INTERVAL) if self.enabled else None


class ShardOptimizer:
    """Updates the shards of all trainable buckets and brings the parameters up to date."""

    def __init__(
        self,
        gradients: list[BucketGradients],
        spec: EngineSpec,
        policy: ShardingPolicy,
        collectives: Collectives,
    ) -> None:
        fused = {"fused": True} if spec.optimizer in FUSED else {"foreach": False}
        self.gradients = gradients
        self.shards = [nn.Parameter(entry.bucket.shard) for entry in gradients]
        self.optimizers = [build_optimizer(spec.optimizer, [shard], spec.lr, **fused) for shard in self.shards]
        self._clip_norm = spec.clip_norm
        self._policy = policy
        self._collectives = collectives

    def step(self, divisor: float, loss_scale: LossScale) -> None:
        """One update with gradients divided by ``divisor`` and the loss scale; skipped if they are not finite."""
        factor = 1.0 / (divisor * loss_scale.value)
        if self._clip_norm is not None or loss_scale.enabled:
            norm = factor * self._global_norm()
            finite = norm < float("inf")  # False for NaN
            loss_scale.update(skipped=not finite)
            if not finite and loss_scale.enabled:
                return
            if self._clip_norm is not None:
                factor *= min(1.0, self._clip_norm / (norm + 1e-6))
        pending = []
        for entry, shard, optimizer in zip(self.gradients, self.shards, self.optimizers, strict=True):
            shard.grad = self._gradient(entry, factor, shard.dtype)
            optimizer.step()
            shard.grad = None
            entry.bucket.publish()
            if self._policy.all_gathers_after_update:
                pending.append(self._collectives.all_gather(entry.bucket.whole))
        for finish in pending:
            finish()

    @staticmethod
    def _gradient(entry: BucketGradients, factor: float, dtype: torch.dtype) -> Tensor:
        assert entry.result is not None
        gradient = entry.result.to(dtype)
        return gradient if factor == 1.0 else gradient.mul_(factor)

    def _global_norm(self) -> float:
        """Norm of the summed gradients over all shards of all ranks; inf or NaN if any element is."""
        total = torch.zeros((), dtype=torch.float64, device=self.shards[0].device)
        for entry in self.gradients:
            assert entry.result is not None
            own = entry.result if self._policy.reduce_scatters else entry.result[entry.bucket.own]
            total += torch.linalg.vector_norm(own, dtype=torch.promote_types(own.dtype, torch.float32)).double() ** 2
        dist.all_reduce(total)
        return math.sqrt(float(total))

    def state(self) -> list[Tensor]:
        """The optimizer's tensors."""
        return [
            entry
            for optimizer in self.optimizers
            for held in optimizer.state.values()
            for entry in held.values()
            if isinstance(entry, Tensor)
        ]
