"""Tensors that a rank keeps from step to step, by kind, where an engine has weights and an optimizer of torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The optimizer's state without its plain numbers."""
    states = optimizer.state.values()
    return [entry for state in states for entry in state.values() if isinstance(entry, Tensor)]


def kept_state(
    weights: Sequence[Tensor], optimizer: torch.optim.Optimizer, buffers: Iterable[Tensor], *, master: bool = False
) -> dict[str, list[Tensor]]:
    """``Engine.state`` of a rank; ``master``: its weights are the fp32 ones of precision=bf16_master."""
    return {
        "master" if master else "params": list(weights),
        "grads": [weight.grad for weight in weights if weight.grad is not None],
        "optimizer": optimizer_tensors(optimizer),
        "buffers": list(buffers),
    }
