"""Whether steps updated the weights, by the bits of what the engine keeps."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from bench.engines.base import Engine
from bench.worker.updates import UpdateWatch


class KeepsCopy:
    """An engine with a weight, and with a second copy that it gathers from."""

    def __init__(self) -> None:
        self.weight = torch.zeros(4)
        self.copy = torch.ones(4)

    def state(self) -> dict[str, list[Tensor]]:
        return {"params": [self.weight, self.copy], "grads": [torch.rand(4)]}

    def copies(self) -> list[Tensor]:
        return [self.copy]


def test_a_second_copy_that_catches_up_is_no_update_of_a_weight() -> None:
    """It takes the weights of the last update when the next step gathers them."""
    engine = KeepsCopy()
    watch = UpdateWatch(cast(Engine, engine))
    engine.copy.copy_(engine.weight)
    assert not watch.result(1).weights_changed
    engine.weight[3] = 0.5
    assert watch.result(2).weights_changed
