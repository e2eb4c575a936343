"""A workload whose loss is multiplied by ``factor``: fp16 gradients overflow until the loss scale has fallen."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from workloads.base import Batch
from workloads.mlp import MLP


class Scaled(MLP):
    def __init__(self, *, factor: float, **options: Any) -> None:
        super().__init__(**options)
        self._factor = factor

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        return super().loss(module, batch) * self._factor


def workload(factor: float) -> dict[str, Any]:
    """The settings of ``workload=``."""
    return {"name": "scaled", "factory": "tests.scaled_loss:load", "factor": factor}


def load(*, seed: int, data_dir: str | None, factor: float) -> Scaled:
    return Scaled(seed=seed, data_dir=data_dir, depth=2, width=32, factor=factor)
