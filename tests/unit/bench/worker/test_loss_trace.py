"""How a loss uses its module, on losses whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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


def penalty_on_all(module: TwoParts, batch: Tensor) -> Tensor:
    device = next(module.parameters()).device
    decay = sum(weight.square().sum() for weight in module.parameters() if weight.requires_grad)
    loss: Tensor = module(batch.to(device)).mean() + decay
    return loss


ALL = ["body.weight", "body.bias", "head.weight", "head.bias"]
HEAD = ["head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("loss", "outside", "early", "bare", "differentiates"),
    [
        (plain, ["body.weight"], [], [], False),
        (head_again, ["body.weight", *HEAD], [], [], False),
        (weight_decay, ["body.weight"], [], ["body.weight"], False),
        (parts_first, HEAD, HEAD, [], False),
        (penalty_on_all, ALL, ALL, ALL, False),
        (penalty, [], [], [], True),
        (attack, ["body.weight"], [], [], False),
    ],
)
def test_what_a_loss_does_beyond_a_call_is_seen(
    loss: Callable[[Any, Any], Tensor], outside: list[str], early: list[str], bare: list[str], differentiates: bool
) -> None:
    """The body is a unit, one of whose weights the root reads. ``grad`` was imported before anything is watched, as in
    most losses."""
    module = TwoParts()
    trace = LossTrace(module, [module.body])
    for _ in range(2):
        trace.watching(loss)(module, torch.ones(2, 4)).backward()
    seen = [set(trace.used_outside), set(trace.used_early), set(trace.used_bare)]
    assert (seen, trace.differentiates) == ([set(outside), set(early), set(bare)], differentiates)
    trace.stop()
    assert not module._forward_hooks and not module.body._forward_pre_hooks


def test_weights_that_forward_makes_anew_and_scripted_modules_are_used_inside() -> None:
    normed = nn.utils.weight_norm(nn.Linear(4, 4))
    module = nn.Sequential(normed, torch.jit.script(nn.Linear(4, 1)))
    trace = LossTrace(module, [normed])
    trace.watching(lambda model, batch: model(batch).mean())(module, torch.ones(2, 4))
    assert (trace.used_outside, trace.used_bare) == ([], [])


def test_modules_whose_forward_runs_in_another_thread_are_named() -> None:
    def in_thread(module: TwoParts, batch: Tensor) -> Tensor:
        with ThreadPoolExecutor() as pool:
            return pool.submit(module.head, module.body(batch)).result().mean()

    module = TwoParts()
    trace = LossTrace(module, [])
    trace.watching(in_thread)(module, torch.ones(2, 4))
    assert (trace.in_threads, trace.used_outside) == (["head"], [])


def test_a_loss_that_fails_leaves_nothing_watched() -> None:
    module = TwoParts()
    trace = LossTrace(module, [])
    before = torch.autograd._engine_run_backward  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError):
        trace.watching(cast(Any, plain))(module, torch.ones(2, 5))
    assert before is torch.autograd._engine_run_backward  # type: ignore[attr-defined]
