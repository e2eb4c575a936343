"""The single process that parity compares with: plain torch with no engine and no communication.

It visits the micro-batches of all ranks one after another, averages their gradients in fp32, and updates once per step.
The same micro-batches, not the whole batch at once, because batch statistics (BatchNorm) belong to a micro-batch. A
weight that no micro-batch reaches has a gradient of zeros, as in the flat buffers of most engines, where torch alone
would leave none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from bench.engines.base import Batch, LossFunction
from bench.engines.muon import hidden_matrices
from bench.engines.optimizers import LearningRate, build_optimizer
from bench.engines.precision import autocast, cast_inputs, cast_module, weight_dtype
from bench.engines.spec import EngineSpec
from bench.saved import save
from results.precision import PRECISIONS

Weights = dict[str, Tensor]
Disturb = Callable[[Tensor], Tensor]
"""What is done to each gradient before the update."""


class MicroBatches(Protocol):
    """Equal micro-batches of one global batch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


def nudge(module: nn.Module, dtype: torch.dtype, seed: int) -> None:
    """Changes each weight by at most half a unit in its last place in ``dtype``, up or down."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            draw = torch.rand(weight.shape, generator=noise).to(weight.device) * 2 - 1
            weight.mul_(1 + torch.finfo(dtype).eps * draw)


def rounding(eps: float, seed: int) -> Disturb:
    """Changes each element of a gradient by up to ``eps`` of itself and of the gradient's root mean square: sums in
    another order are off by a share of their terms, however small the sum is."""
    noise = torch.Generator().manual_seed(seed)

    def disturb(gradient: Tensor) -> Tensor:
        own, common = ((torch.rand(gradient.shape, generator=noise) * 2 - 1).to(gradient.device) for _ in range(2))
        size = gradient.square().mean().sqrt() if gradient.numel() else 0.0
        return gradient + eps * (own * gradient + common * size)

    return disturb


@dataclass(frozen=True)
class Reference:
    """A single-process training run, on the CPU."""

    losses: list[float]
    """Mean loss of each global batch, before its update."""
    initial: Weights
    first: Weights
    """After the first update."""
    final: Weights

    def save(self, path: Path) -> None:
        save(vars(self), path)

    @classmethod
    def load(cls, path: Path) -> Reference:
        return cls(**torch.load(path, weights_only=True, mmap=True))

    def fault(self) -> str:
        """What makes a reference useless to compare with, in words; empty if nothing does."""
        steps = len(self.losses)
        for step, loss in enumerate(self.losses):
            if not math.isfinite(loss):
                return f"the single process itself has a loss that is not finite ({loss} in step {step + 1} of {steps})"
        for name, weight in self.final.items():
            if not bool(weight.isfinite().all()):
                return f"the single process itself has weights that are not finite after {steps} steps ({name})"
        if all(torch.equal(weight, self.initial[name]) for name, weight in self.final.items()):
            return f"the single process updated no weight in {steps} steps, so there is nothing to compare"
        return ""


@dataclass
class Shadow:
    """Every weight as it would be if its gradient alone were not reduced: updated along the reference's way by the
    gradient of the first share."""

    first: Weights = field(default_factory=dict)
    final: Weights = field(default_factory=dict)


@dataclass(frozen=True)
class SingleProcessTraining:
    """The reference, and what only its own noise is judged by."""

    reference: Reference
    gradients: Weights
    """Of the first step, on the CPU."""
    shadow: Shadow


def train_reference(
    module: nn.Module,
    steps: Iterable[MicroBatches],
    loss_fn: LossFunction,
    spec: EngineSpec,
    device: torch.device,
    *,
    disturb: Disturb | None = None,
    share: int = 0,
) -> SingleProcessTraining:
    """Trains ``module``; each step is the micro-batches of one global batch.

    ``disturb`` changes gradients before the update. ``share`` is how many micro-batches are the first rank's, if it
    has a shadow; 0: none.
    """
    trainer = _Trainer(module, spec, device, disturb, share)
    initial, first, gradients = trainer.weights(), Weights(), Weights()
    shadow = Shadow()
    losses: list[float] = []
    for micro_batches in steps:
        losses.append(trainer.step(micro_batches, loss_fn))
        if len(losses) == 1:
            first, gradients, shadow.first = trainer.weights(), trainer.gradients(), trainer.shadows()
        trainer.clear()
    shadow.final = trainer.shadows()
    final = trainer.weights() if len(losses) > 1 else first or initial
    return SingleProcessTraining(Reference(losses, initial, first or initial, final), gradients, shadow)


class _Trainer:
    """One process that trains a module on global batches."""

    def __init__(
        self, module: nn.Module, spec: EngineSpec, device: torch.device, disturb: Disturb | None, share: int
    ) -> None:
        self.module = cast_module(module.to(device), spec.precision)
        self.spec, self.device, self.disturb, self.share = spec, device, disturb, share
        self.named = {name: weight for name, weight in self.module.named_parameters() if weight.requires_grad}
        self.trained = list(self.named.values())
        mixed = spec.precision == "bf16_master"
        self.masters = [weight.detach().clone().float() for weight in self.trained] if mixed else self.trained
        chosen = hidden_matrices(self.module)
        self.matrices = [id(weight) in chosen for weight in self.trained]
        self.optimizer = self._build_optimizer(self.masters)
        self.scaler = torch.amp.GradScaler(device.type, enabled=PRECISIONS[spec.precision].loss_scaling)
        # As engines do: where fp16 overflows depends on it.
        self.folded = spec.accumulate if self.scaler.is_enabled() else 1
        self.shadowed = [master.detach().clone() for master in self.masters] if share else []
        self.shadow_optimizer = self._build_optimizer(self.shadowed) if share else None
        updated = [optimizer for optimizer in (self.optimizer, self.shadow_optimizer) if optimizer]
        self.learning_rate = LearningRate(spec, *updated)

    def _build_optimizer(self, weights: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Of ``trained`` or of copies of them."""
        matrices = {id(weight) for weight, is_matrix in zip(weights, self.matrices, strict=True) if is_matrix}
        return build_optimizer(self.spec, weights, matrices, foreach=False)

    def step(self, micro_batches: MicroBatches, loss_fn: LossFunction) -> float:
        """Trains on one global batch; its mean loss."""
        totals = [torch.zeros_like(weight, dtype=at_least_fp32(weight.dtype)) for weight in self.trained]
        count, loss_sum = len(micro_batches), 0.0
        own: list[Tensor] = []
        for index, batch in enumerate(micro_batches):
            with autocast(self.spec.precision, self.device.type):
                loss = loss_fn(self.module, cast_inputs(batch, weight_dtype(self.spec.precision)))
            self.scaler.scale(loss / self.folded if self.folded > 1 else loss).backward()
            loss_sum += float(loss.detach())
            for total, weight in zip(totals, self.trained, strict=True):
                if weight.grad is not None:
                    total += weight.grad.to(total.dtype) / (count // self.folded)
                    weight.grad = None
            if index + 1 == self.share:
                own = [total * (count / self.share) for total in totals]
        for master, total in zip(self.masters, totals, strict=True):
            master.grad = (self.disturb(total) if self.disturb else total).to(master.dtype)
        self._update(own)
        return loss_sum / count

    def _update(self, own: list[Tensor]) -> None:
        self.learning_rate.advance()
        scale = self.scaler.get_scale()
        self.scaler.unscale_(self.optimizer)
        clipping = 1.0
        if self.spec.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.masters, self.spec.clip_norm, foreach=False)
            clipping = min(1.0, self.spec.clip_norm / (float(norm) + 1e-6))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.shadow_optimizer and self.scaler.get_scale() >= scale:  # else the update was skipped
            for shadow, gradient in zip(self.shadowed, own, strict=True):
                shadow.grad = (gradient * (clipping / scale)).to(shadow.dtype)
            self.shadow_optimizer.step()
        with torch.no_grad():
            for master, weight in zip(self.masters, self.trained, strict=True):
                if master is not weight:
                    weight.copy_(master)

    def clear(self) -> None:
        self.optimizer.zero_grad()

    def weights(self) -> Weights:
        return {name: weight.detach().cpu().clone() for name, weight in self.module.named_parameters()}

    def gradients(self) -> Weights:
        """Of the last update."""
        named = zip(self.named, self.masters, strict=True)
        return {name: master.grad.detach().cpu().clone() for name, master in named if master.grad is not None}

    def shadows(self) -> Weights:
        if not self.share:
            return {}
        dtypes = (weight.dtype for weight in self.trained)
        named = zip(self.named, self.shadowed, dtypes, strict=True)
        return {name: shadow.detach().to("cpu", dtype, copy=True) for name, shadow, dtype in named}


def at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
