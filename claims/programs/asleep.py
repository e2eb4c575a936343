"""A workload that trains on real data, and whose steps take a set time on as many ranks as one likes."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor, nn

from workloads.digits import Digits, network


class AsleepDigits(Digits):
    """The digits' network of ``width`` channels, which sleeps ``forward_s`` and ``backward_s`` in each micro-batch.

    Computation should be short beside that, so that ranks do not compete for cores.
    """

    def __init__(self, *, seed: int, forward_s: float, backward_s: float, width: int = 8) -> None:
        super().__init__(seed=seed, data_dir=None, width=width)
        self._asleep = Asleep(forward_s, backward_s)

    def network(self) -> nn.Module:
        return nn.Sequential(*network(self._width, self._depth).children(), self._asleep)


class Asleep(nn.Module):
    """Passes its input on, so many seconds later, and its gradient back."""

    def __init__(self, forward_s: float, backward_s: float) -> None:
        super().__init__()
        self.forward_s = forward_s
        self.backward_s = backward_s

    def forward(self, inputs: Tensor) -> Tensor:
        time.sleep(self.forward_s)
        outputs: Tensor = inputs.view_as(inputs)
        if outputs.requires_grad:
            outputs.register_hook(self._sleep)
        return outputs

    def _sleep(self, gradient: Tensor) -> Any:
        time.sleep(self.backward_s)
        return gradient
