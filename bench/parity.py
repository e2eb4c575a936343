"""Parity: training must compute what one process computes on the same global batches.

The reference is plain torch with no engine and no communication. It visits the micro-batches of all ranks
one after another, averages their gradients in fp32, and updates once per step. The same micro-batches,
not the whole batch at once, because batch statistics (BatchNorm) belong to a micro-batch. A weight that no micro-batch
reaches has a gradient of zeros, as in the flat buffers of most engines, where torch alone would leave none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.engines.base import Batch, LossFunction
from bench.engines.optimizers import build_optimizer
from bench.engines.precision import autocast, cast_inputs, cast_module, weight_dtype
from bench.engines.spec import EngineSpec
from bench.record import Parity
from bench.saved import save

TOLERANCE = {"fp32": 1e-3, "amp_bf16": 0.03, "amp_fp16": 0.03, "bf16": 0.15, "bf16_master": 0.15}
"""Largest parity error by precision (docs/method.md says how they were chosen; tests hold wrong engines to them)."""

ONE_SIDED = 0.15
"""The least tolerance where the engine rounds to 16 bits what a single process does not: gradients on the wire
(compression=bf16, fp16), or partial results of a layer before they are added up."""


def nudge(module: nn.Module, dtype: torch.dtype, seed: int) -> None:
    """Changes each weight by at most half a unit in its last place in ``dtype``, up or down."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            draw = torch.rand(weight.shape, generator=noise).to(weight.device) * 2 - 1
            weight.mul_(1 + torch.finfo(dtype).eps * draw)


@dataclass(frozen=True)
class Reference:
    """A single-process training run, on the CPU."""

    losses: list[float]
    """Mean loss of each global batch, before its update."""
    initial: dict[str, Tensor]
    final: dict[str, Tensor]

    def save(self, path: Path) -> None:
        save({"losses": self.losses, "initial": self.initial, "final": self.final}, path)

    @classmethod
    def load(cls, path: Path) -> Reference:
        return cls(**torch.load(path, weights_only=True))


def train_reference(
    module: nn.Module, steps: list[list[Batch]], loss_fn: LossFunction, spec: EngineSpec, device: torch.device
) -> Reference:
    """Trains ``module`` for ``len(steps)`` steps; each step is a list of equal micro-batches of one global batch."""
    dtype = weight_dtype(spec.precision)
    module = cast_module(module.to(device), spec.precision)
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    masters = [weight.detach().clone().float() for weight in weights] if spec.precision == "bf16_master" else weights
    initial = _copy(module)
    optimizer = build_optimizer(spec.optimizer, masters, spec.lr, foreach=False)
    scaler = torch.amp.GradScaler(device.type, enabled=spec.precision == "amp_fp16")
    folded = spec.accumulate if scaler.is_enabled() else 1  # as engines do: where fp16 overflows depends on it
    losses = []
    for micro_batches in steps:
        gradients = [torch.zeros_like(weight, dtype=at_least_fp32(weight.dtype)) for weight in weights]
        loss_sum = 0.0
        for batch in micro_batches:
            with autocast(spec.precision, device.type):
                loss = loss_fn(module, cast_inputs(batch, dtype))
            scaler.scale(loss / folded if folded > 1 else loss).backward()
            loss_sum += float(loss.detach())
            for total, weight in zip(gradients, weights, strict=True):
                if weight.grad is not None:
                    total += weight.grad.to(total.dtype) / (len(micro_batches) // folded)
                    weight.grad = None
        for master, total in zip(masters, gradients, strict=True):
            master.grad = total.to(master.dtype)
        scaler.unscale_(optimizer)
        if spec.clip_norm is not None:
            nn.utils.clip_grad_norm_(masters, spec.clip_norm, foreach=False)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        with torch.no_grad():
            for master, weight in zip(masters, weights, strict=True):
                if master is not weight:
                    weight.copy_(master)
        losses.append(loss_sum / len(micro_batches))
    return Reference(losses, initial, _copy(module))


def at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def tolerance(precision: str, compression: str = "none", *, partial_sums: bool = False) -> float:
    """Largest parity error of a right engine."""
    one_sided = compression in ("bf16", "fp16") or (partial_sums and precision != "fp32")
    return max(TOLERANCE[precision], ONE_SIDED if one_sided else 0.0)


def compare(
    reference: Reference, losses: list[float], weights: dict[str, Tensor], precision: str, limit: float | None = None
) -> Parity:
    """Parity of a run with these global losses and final weights (docs/method.md, "Parity").

    ``limit`` is the tolerance; None: that of the precision.
    Raises KeyError if a parameter of the reference is missing from ``weights``.
    """
    expected = torch.tensor(reference.losses, dtype=torch.float64)
    errors = (torch.tensor(losses, dtype=torch.float64) - expected).abs() / expected.abs().clamp(min=1e-12)
    return Parity(
        steps=len(losses),
        loss_error=float(errors.max()),  # NaN if any step's is, which Python's max() may pass over
        weights_error=weights_error(reference, weights, weight_dtype(precision)),
        tolerance=tolerance(precision) if limit is None else limit,
        losses=losses,
        reference_losses=reference.losses,
    )


def weights_error(reference: Reference, weights: dict[str, Tensor], dtype: torch.dtype) -> float:
    """|θ - θ_ref| / (|θ_ref - θ_0| + eps/4·|θ_ref|) over all parameters: the error as a share of what training moved.

    An error relative to the weights themselves would hide a wrong gradient behind a small learning rate. The
    second term is the rounding of weights in ``dtype`` (root mean square of a uniform error of half a unit in the
    last place: 0.2 to 0.3 eps), below which no two runs can agree. A reference that did not move proves nothing:
    infinite.
    """
    missing = sorted(set(reference.final) - set(weights))
    if missing:
        raise KeyError(f"full_state_dict() lacks {missing[0]}")
    off = path = size = 0.0
    for name, expected in reference.final.items():
        final = expected.double()
        off += float((weights[name].detach().cpu().double() - final).square().sum())
        path += float((final - reference.initial[name].double()).square().sum())
        size += float(final.square().sum())
    if path == 0:
        return float("inf")
    return float(off**0.5 / (path**0.5 + torch.finfo(dtype).eps / 4 * size**0.5))


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().cpu().clone() for name, weight in module.named_parameters()}
