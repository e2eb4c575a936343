"""The four optimizers with the hyperparameters that every engine must use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
}

FUSED = ("sgd", "adam", "adamw")
"""Optimizers for which torch has a fused kernel on CPU and on CUDA."""


def build_optimizer(
    name: str, parameters: Iterable[Tensor] | Iterable[dict[str, Any]], lr: float, **more: Any
) -> torch.optim.Optimizer:
    """``name`` over ``parameters`` or groups of them; ``more`` selects an implementation (``fused``, ``foreach``)."""
    kind, settings = OPTIMIZERS[name]
    listed: list[Any] = list(parameters)
    return kind(listed, lr=lr, **settings, **more)  # type: ignore[call-arg]
