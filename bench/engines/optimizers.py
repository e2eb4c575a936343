"""The optimizers with the hyperparameters that every engine must use, and the learning rate of each update."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench.engines import adam8bit
from bench.engines.muon import MuonAndAdamW, matrix_hyperparameters
from bench.engines.spec import EngineUnsupported
from results.training_settings import Training

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "muon": MuonAndAdamW,
    "adam8bit": adam8bit.create,
}

FUSED = ("sgd", "adam", "adamw", "muon")
"""Optimizers for which torch has a fused kernel on CPU and on CUDA; of muon, for its part that is AdamW."""
MOMENTUM = 0.9
"""Of sgd, where no other is set."""
BETAS = (0.9, 0.999)
"""Of adam, adam8bit and adamw, likewise."""


def hyperparameters(spec: Training) -> dict[str, Any]:
    """The optimizer's arguments besides the learning rate; what is not set is torch's own, except sgd's momentum.

    Those of muon are its groups' (``parameter_groups``).
    """
    if spec.optimizer == "muon":
        return {}
    named: dict[str, Any] = {"eps": spec.eps, "weight_decay": spec.weight_decay, "momentum": spec.momentum}
    if spec.optimizer == "sgd" and spec.momentum is None:
        named["momentum"] = MOMENTUM
    if spec.beta1 is not None or spec.beta2 is not None:
        named["betas"] = tuple(
            own if own is not None else usual for own, usual in zip((spec.beta1, spec.beta2), BETAS, strict=True)
        )
    return {name: value for name, value in named.items() if value is not None}


def parameter_groups(
    spec: Training, parameters: Iterable[Tensor] | Iterable[dict[str, Any]], matrices: Collection[int] | None
) -> list[Any]:
    """The parameters as their optimizer takes them; muon: in groups, each with its hyperparameters.

    Raises EngineUnsupported for muon without ``matrices`` (ids, ``bench.engines.muon.hidden_matrices``).
    """
    listed: list[Any] = list(parameters)
    if spec.optimizer != "muon":
        return listed
    if matrices is None:
        raise EngineUnsupported("optimizer=muon is not supported: the engine does not say which weights are matrices")
    rest = replace(spec, optimizer="adamw", momentum=None)
    groups = [
        {"params": [weight for weight in listed if id(weight) in matrices], "matrices": True}
        | matrix_hyperparameters(spec),
        {"params": [weight for weight in listed if id(weight) not in matrices], "matrices": False}
        | hyperparameters(rest),
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    spec: Training,
    parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
    matrices: Collection[int] | None = None,
    /,
    **more: Any,
) -> torch.optim.Optimizer:
    """The optimizer over ``parameters`` or groups of them; ``more`` selects an implementation (``fused``).

    ``matrices``: ids of the parameters that muon orthogonalizes. Raises EngineUnsupported for muon without them.
    """
    groups = parameter_groups(spec, parameters, matrices)
    return OPTIMIZERS[spec.optimizer](groups, lr=spec.lr, **hyperparameters(spec), **more)


def fused(spec: Training, weights: Iterable[Tensor], *, sharded: bool = False) -> dict[str, bool]:
    """The argument for a fused update, where torch has one; ``sharded``: the weights are DTensors.

    No fused optimizer takes complex weights, and DTensor has no rule for the fused SGD.
    """
    unfused = (sharded and spec.optimizer == "sgd") or any(weight.is_complex() for weight in weights)
    return {"fused": True} if spec.optimizer in FUSED and not unfused else {}


class LearningRate:
    """Sets the learning rate before each update, skipped ones included."""

    def __init__(self, spec: Training, *optimizers: torch.optim.Optimizer) -> None:
        self._spec, self._optimizers = spec, optimizers
        self._step = 0

    def advance(self) -> None:
        """Called before each update."""
        self._step += 1
        if self._spec.lr_schedule == "constant" and not self._spec.lr_warmup:
            return
        rate = self._spec.lr * factor(self._spec, self._step)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate


def factor(spec: Training, step: int) -> float:
    """What the learning rate of update ``step`` (from 1) is multiplied by: a linear rise, then the schedule."""
    if step < spec.lr_warmup:
        return step / spec.lr_warmup
    if spec.lr_schedule == "constant" or spec.lr_steps is None:
        return 1.0
    passed = min(1.0, (step - spec.lr_warmup) / max(1, spec.lr_steps - spec.lr_warmup))
    return 1 - passed if spec.lr_schedule == "linear" else (1 + math.cos(math.pi * passed)) / 2
