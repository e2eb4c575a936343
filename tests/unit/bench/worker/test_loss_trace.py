"""How a loss uses its module, on losses whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import grad

from bench.worker.loss_trace import LossTrace


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.body(x)) * self.body.weight.mean()
        return output


def plain(module: TwoParts, batch: Tensor) -> Tensor:
    loss: Tensor = module(batch).square().mean()
    return loss


def head_again(module: TwoParts, batch: Tensor) -> Tensor:
    output = module(batch)
    loss: Tensor = (output + module.head(batch)).square().mean()
    return loss


def weight_decay(module: TwoParts, batch: Tensor) -> Tensor:
    loss: Tensor = module(batch).mean() + module.body.weight.square().sum()
    return loss


def parts_first(module: TwoParts, batch: Tensor) -> Tensor:
    loss: Tensor = module.head(module.body(batch)).mean()
    return loss


def penalty(module: TwoParts, batch: Tensor) -> Tensor:
    inputs = batch.clone().requires_grad_()
    (slope,) = grad(module(inputs).sum(), inputs, create_graph=True)
    loss: Tensor = slope.square().mean()
    return loss


def attack(module: TwoParts, batch: Tensor) -> Tensor:
    inputs = batch.clone().requires_grad_()
    (slope,) = grad(module(inputs).sum(), inputs)
    loss: Tensor = module(batch + slope.sign()).mean()
    return loss


@pytest.mark.parametrize(
    ("loss", "read_late", "differentiates"),
    [
        (plain, [], False),
        (head_again, ["head.weight", "head.bias"], False),
        (weight_decay, ["body.weight"], False),
        (parts_first, [], False),
        (penalty, [], True),
        (attack, [], False),
    ],
)
def test_what_a_loss_does_beyond_a_call_is_seen(
    loss: Callable[[Any, Any], Tensor], read_late: list[str], differentiates: bool
) -> None:
    """``grad`` was imported before anything is watched, as in most losses."""
    module = TwoParts()
    trace = LossTrace(module)
    for _ in range(2):
        trace.watching(loss)(module, torch.ones(2, 4)).backward()
    assert (trace.read_late, trace.differentiates) == (read_late, differentiates)
    trace.stop()
    original = nn.Module.__getattr__
    assert original.__qualname__ == "Module.__getattr__"


def test_a_loss_that_fails_leaves_nothing_watched() -> None:
    module = TwoParts()
    trace = LossTrace(module)
    before = nn.Module.__getattr__, torch.autograd._engine_run_backward  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError):
        trace.watching(cast(Any, plain))(module, torch.ones(2, 5))
    assert before == (nn.Module.__getattr__, torch.autograd._engine_run_backward)  # type: ignore[attr-defined]
