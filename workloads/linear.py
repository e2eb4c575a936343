"""A single linear layer, the model of introductory articles."""

from __future__ import annotations

from torch import nn

from workloads import data
from workloads.base import check_choice, check_count
from workloads.supervised import Regression


class Linear(Regression):
    """One linear layer of ``inputs`` to ``outputs``; mean squared error on vectors.

    ``inputs=1 outputs=1`` and ``inputs=10 outputs=10`` are what articles and documentation show DDP and ZeRO with.
    """

    def __init__(
        self, *, seed: int, data_dir: str | None, inputs: int = 10, outputs: int = 10, bias: bool = True
    ) -> None:
        check_count("linear", "inputs", inputs)
        check_count("linear", "outputs", outputs)
        check_choice("linear", "bias", bias, (True, False))
        data.reject_data_dir("linear", data_dir)
        self._inputs = inputs
        self._outputs = outputs
        self._bias = bias
        super().__init__("linear", seed, data.vectors(seed, width=inputs, outputs=outputs))

    def network(self) -> nn.Module:
        return nn.Linear(self._inputs, self._outputs, bias=self._bias)

    def units(self, module: nn.Module) -> list[nn.Module]:
        """None: the layer is the root."""
        return []
