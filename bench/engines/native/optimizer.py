"""The update: one torch optimizer per bucket, over the shard that this rank owns (of matrices: ``sharded_muon.py``).

Gradients arrive summed over ranks. What still has to be divided out (the rest of the mean, the loss scale, clipping) is
one factor. It is applied to the shards in one pass, or in none where it is 1. The global norm is that of all ranks'
shards with every policy, also where each rank has all gradients. One scalar is reduced, and a norm that is not finite
makes every rank skip the same step.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.engines import adam8bit
from bench.engines.native.gradients import BucketGradients
from bench.engines.native.loss_scaling import LossScale
from bench.engines.native.offload import UpdatePlace
from bench.engines.native.sharded_muon import ShardedMuon
from bench.engines.optimizers import FUSED, build_optimizer
from bench.engines.spec import EngineSpec


class ShardOptimizer:
    """Updates the shard of one bucket."""

    def __init__(self, gradients: BucketGradients, spec: EngineSpec, place: UpdatePlace) -> None:
        self.gradients = gradients
        self.bucket = gradients.bucket
        self.place = place
        self.sharded_param = nn.Parameter(place.weights)
        self.parts = self._parts() if spec.optimizer == adam8bit.NAME else [self.sharded_param]
        self.optimizer = self._build_optimizer(spec)

    def _build_optimizer(self, spec: EngineSpec) -> torch.optim.Optimizer:
        if self.bucket.has_matrices:
            return ShardedMuon(self.bucket, self.sharded_param, spec)
        fused = {"fused": True} if spec.optimizer in FUSED else {"foreach": False}
        return build_optimizer(spec, self.parts, (), **fused)

    def _parts(self) -> list[nn.Parameter]:
        """The shard, cut where moments of 8 bits have whole blocks."""
        weights = self.place.weights
        return [nn.Parameter(part) for part in weights.split(adam8bit.parts(weights.numel()))]

    def start_step(self) -> None:
        """Starts to bring the reduced gradient to the place of the update."""
        assert self.gradients.reduced_grad is not None
        self.place.take_gradient(self.gradients.reduced_grad)

    def skip_step(self) -> None:
        """Drops the gradient that ``start_step`` brings, once it is there: only then may the device's be freed."""
        self.place.gradient()

    def step(self, factor: float) -> None:
        """Updates with the reduced gradient times ``factor``."""
        gradient = self.place.gradient().to(self.sharded_param.dtype)
        gradient = gradient if factor == 1.0 else gradient.mul_(factor)
        for part, own in zip(self.parts, gradient.split([part.numel() for part in self.parts]), strict=True):
            part.grad = own
        self.optimizer.step()
        for part in self.parts:
            part.grad = None
        self.place.give_back()

    def state(self) -> list[Tensor]:
        """The optimizer's tensors."""
        return [
            value for values in self.optimizer.state.values() for value in values.values() if isinstance(value, Tensor)
        ]


def gradient_factor(
    gradients: list[BucketGradients], divisor: float, clip_norm: float | None, loss_scale: LossScale
) -> float | None:
    """The factor of summed gradients: 1 / ``divisor`` / loss scale, clipped to the global norm ``clip_norm``.

    None if the update must be skipped because a gradient is not finite. Updates ``loss_scale``.
    """
    factor = 1.0 / (divisor * loss_scale.value)
    if clip_norm is None and not loss_scale.enabled:
        return factor
    norm = factor * global_norm(gradients)
    finite = norm < float("inf")  # False for NaN
    loss_scale.update(skipped=not finite)
    if not finite and loss_scale.enabled:
        return None
    return factor if clip_norm is None else factor * min(1.0, clip_norm / (norm + 1e-6))


def global_norm(gradients: list[BucketGradients]) -> float:
    """Norm of the summed gradients over all shards of all ranks; inf or NaN if any element is."""
    total = torch.zeros((), dtype=torch.float64, device=gradients[0].bucket.sharded_param.device)
    for entry in gradients:
        assert entry.reduced_grad is not None
        own = entry.reduced_grad if entry.policy.reduce_scatters else entry.reduced_grad[entry.bucket.own_elements]
        total += torch.linalg.vector_norm(own, dtype=torch.promote_types(own.dtype, torch.float32)).double() ** 2
    dist.all_reduce(total)
    return math.sqrt(float(total))
