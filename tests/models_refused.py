"""Modules that native does not support, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tests.models_elsewhere import WIDTH, Aliased, Bounded, Complex, Reentrant, Skipped, SlicedScaled, Sparse

REFUSED: dict[str, Callable[..., nn.Module]] = {
    "bounded": Bounded,
    "skipped": Skipped,
    "reentrant": Reentrant,
    "aliased": Aliased,
    "sparse": Sparse,
    "complex": Complex,
    "sliced_scaled": SlicedScaled,
    "scripted_inside": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), torch.jit.script(nn.Linear(WIDTH, WIDTH))),
    "scripted": lambda: nn.Sequential(torch.jit.script(nn.Linear(WIDTH, WIDTH))),
}
