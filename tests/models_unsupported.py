"""Modules that native does not support, by name."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from tests.models_elsewhere import WIDTH, Aliased, Bounded, Complex, Reentrant, Skipped, SlicedScaled, Sparse


def hooked() -> nn.Module:
    """Two linear layers; the gradient of the first one's weight is clamped by a hook."""
    first = nn.Linear(WIDTH, WIDTH)
    first.weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    return nn.Sequential(first, nn.Linear(WIDTH, WIDTH))


class Threaded(nn.Module):
    """Layers that threads compute side by side; an error in one of them is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.parts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        with ThreadPoolExecutor() as pool:
            outputs = [pool.submit(part, hidden) for part in self.parts]
        added = [output.result() for output in outputs if not output.exception()]
        return self.last(torch.stack(added).tanh().sum(0))  # type: ignore[no-any-return]


UNSUPPORTED: dict[str, Callable[..., nn.Module]] = {
    "bounded": Bounded,
    "skipped": Skipped,
    "reentrant": Reentrant,
    "aliased": Aliased,
    "sparse": Sparse,
    "complex": Complex,
    "hooked": hooked,
    "threaded": Threaded,
    "sliced_scaled": SlicedScaled,
    "scripted_inside": lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), torch.jit.script(nn.Linear(WIDTH, WIDTH))),
    "scripted": lambda: nn.Sequential(torch.jit.script(nn.Linear(WIDTH, WIDTH))),
}
