"""A single linear layer, the model of introductory articles."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from workloads import data
from workloads.base import Batch, WorkloadInfo, check_choice, check_count, reseeded


class Linear:
    """One linear layer of ``inputs`` to ``outputs``; mean squared error on vectors.

    ``inputs=1 outputs=1`` and ``inputs=10 outputs=10`` are what articles and documentation show DDP and ZeRO with.
    """

    def __init__(
        self, *, seed: int, data_dir: str | None, inputs: int = 10, outputs: int = 10, bias: bool = True
    ) -> None:
        check_count("linear", "inputs", inputs)
        check_count("linear", "outputs", outputs)
        check_choice("linear", "bias", bias, (True, False))
        data.refuse_data_dir("linear", data_dir)
        self._seed = seed
        self._inputs = inputs
        self._outputs = outputs
        self._bias = bias
        self._source = data.vectors(seed, width=inputs, outputs=outputs)
        self.info = WorkloadInfo("linear", unit="sample", units_per_sample=1, data=self._source.info)

    def build(self) -> nn.Module:
        with reseeded(self._seed):
            return nn.Linear(self._inputs, self._outputs, bias=self._bias)

    def units(self, module: nn.Module) -> list[nn.Module]:
        """None: the layer is the root."""
        return []

    def batch(self, indices: Sequence[int]) -> Batch:
        return self._source.batch(indices)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        return F.mse_loss(module(inputs).float(), targets.float())
