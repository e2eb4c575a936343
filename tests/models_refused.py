"""Modules that native does not support, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tests.models_elsewhere import WIDTH, Aliased, Bounded, Complex, Reentrant, Skipped, SlicedScaled, Sparse


def hooked() -> nn.Module:
    """Two linear layers; the gradient of the first one's weight is clamped by a hook."""
    first = nn.Linear(WIDTH, WIDTH)
    first.weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    return nn.Sequential(first, nn.Linear(WIDTH, WIDTH))


REFUSED: dict[str, Callable[..., nn.Module]] = {
    "bounded": Bounded,
    "skipped": Skipped,
    "reentrant": Reentrant,
    "aliased": Aliased,
    "sparse": Sparse,
    "complex": Complex,
    "hooked": hooked,
    "sliced_scaled": SlicedScaled,
    "scripted_inside": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), torch.jit.script(nn.Linear(WIDTH, WIDTH))),
    "scripted": lambda: nn.Sequential(torch.jit.script(nn.Linear(WIDTH, WIDTH))),
}
