"""The base class of the workloads here: a seeded network, a source of samples, and a criterion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from workloads.base import Batch, WorkloadInfo, reseeded
from workloads.data import Bank, DataSource


class Supervised(ABC):
    """Inputs and targets of a source; the loss is ``criterion`` of the module's output and the targets.

    The last column of a batch holds the targets; the module is called with all others.
    """

    def __init__(
        self, name: str, seed: int, source: DataSource, *, unit: str = "sample", units_per_sample: int = 1
    ) -> None:
        self._seed = seed
        self._source = source
        self.info = WorkloadInfo(name, unit, units_per_sample, source.info)

    @abstractmethod
    def network(self) -> nn.Module:
        """A new module; its weights are drawn from torch's default generator."""

    def criterion(self, output: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits (..., classes) against classes (...), the mean."""
        return F.cross_entropy(output.flatten(0, -2), targets.flatten())

    def build(self) -> nn.Module:
        with reseeded(self._seed):
            return self.network()

    def units(self, module: nn.Module) -> list[nn.Module]:
        """The module's children."""
        return list(module.children())

    def batch(self, indices: Sequence[int]) -> Batch:
        return self._source.batch(indices)

    def write_files(self, folder: Path) -> bool:
        """Writes its samples as files that it reads with ``data_dir=folder``; False if it reads none."""
        return isinstance(self._source, Bank) and self._source.write(folder)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        *inputs, targets = batch
        return self.criterion(module(*inputs).float(), targets)


class Regression(Supervised):
    """The criterion is the mean squared error."""

    def criterion(self, output: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(output, targets.float())
