"""Which parameters a loss reads outside of their sharding unit, on losses whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from bench.worker.reads import read_outside


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.body(x))
        return output


class Scaled(TwoParts):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = self.body.weight.norm()
        return super().forward(x) / scale


def plain(module: nn.Module) -> Tensor:
    loss: Tensor = module(torch.ones(2, 4)).mean()
    return loss


def with_metadata(module: TwoParts) -> Tensor:
    weight = module.body.weight
    inputs = torch.ones(2, weight.shape[1], dtype=weight.dtype, device=weight.device)
    assert weight.grad is None and weight.numel() == weight.size(0) * 4 and torch.is_tensor(weight)
    loss: Tensor = module(inputs + torch.zeros_like(weight)[:2] + weight.new_zeros(())).mean()
    return loss


def with_data(module: TwoParts) -> Tensor:
    return plain(module) / module.head.weight.data.sum()


def with_detach(module: TwoParts) -> Tensor:
    return plain(module) * module.body.weight.detach().mean()


def with_a_log_line(module: TwoParts) -> Tensor:
    assert torch.stack([module.body.bias.norm(), module.head.bias.norm()]).isfinite().all()
    return plain(module)


def with_a_number(module: TwoParts) -> Tensor:
    return plain(module) + module.head.bias.item()


@pytest.mark.parametrize(
    ("make", "loss", "expected"),
    [
        (TwoParts, plain, []),
        (TwoParts, with_metadata, []),
        (Scaled, plain, ["body.weight"]),
        (TwoParts, with_data, ["head.weight"]),
        (TwoParts, with_detach, ["body.weight"]),
        (TwoParts, with_a_log_line, ["body.bias", "head.bias"]),
        (TwoParts, with_a_number, ["head.bias"]),
    ],
)
def test_a_parameter_that_is_read_outside_of_its_unit_is_named(
    make: Callable[[], Any], loss: Callable[[Any], Tensor], expected: list[str]
) -> None:
    """The body is a unit; the head belongs to the root, which is open during the module's forward."""
    module = make()
    assert read_outside(module, [module.body], lambda: loss(module)) == expected
    assert not module._forward_hooks and not module.body._forward_pre_hooks


def test_a_compiled_part_runs_eagerly_while_it_is_watched() -> None:
    compiled = cast(nn.Module, torch.compile(nn.Linear(4, 4), fullgraph=True))
    module = nn.Sequential(compiled, nn.Linear(4, 1))
    assert read_outside(module, [compiled], lambda: plain(module)) == []
