"""Activation checkpointing of units, held against the same module without it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.engines.activation_checkpointing import checkpoint_units
from bench.engines.spec import EngineUnsupported
from bench.measure.flops import Counter

SAMPLES, WIDTH, BLOCKS = 8, 16, 2
PRODUCT = 2 * SAMPLES * WIDTH * 4 * WIDTH
"""FLOPs of one of a block's two products."""


class Block(nn.Module):
    """Draws random numbers, and moves statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.project = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.norm, self.dropout = nn.BatchNorm1d(WIDTH), nn.Dropout(0.2)

    def forward(self, stream: Tensor) -> Tensor:
        dropped: Tensor = self.dropout(self.norm(self.project(F.gelu(self.expand(stream)))))
        return stream + dropped


def trained(module: nn.Module, mode: str, *, autocast: bool = False) -> tuple[list[Tensor], int]:
    """Loss, gradients and buffers of a backward of a copy, and its FLOPs."""
    module = copy.deepcopy(module)
    checkpoint_units(list(module.children()), mode)
    torch.manual_seed(1)
    inputs = torch.randn(SAMPLES, WIDTH)
    with Counter() as counter:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = module(inputs).square().mean()
        loss.backward()
    gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
    return [loss.detach(), *gradients, *module.buffers()], counter.flops


@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_and_statistics_are_the_same_bits(autocast: bool) -> None:
    module = nn.Sequential(*(Block() for _ in range(BLOCKS)))
    plain, _ = trained(module, "none", autocast=autocast)
    for mode in ("full", "selective"):
        again, _ = trained(module, mode, autocast=autocast)
        assert all(map(torch.equal, plain, again)), mode


def test_full_computes_each_product_again_and_selective_none() -> None:
    module = nn.Sequential(*(Block() for _ in range(BLOCKS)))
    flops = {mode: trained(module, mode)[1] for mode in ("none", "full", "selective")}
    assert flops["none"] == (6 * BLOCKS - 1) * PRODUCT  # no gradient of the first inputs
    assert flops["full"] - flops["none"] == 2 * BLOCKS * PRODUCT
    assert flops["selective"] == flops["none"]


def test_a_forward_without_gradients_is_not_checkpointed() -> None:
    module = nn.Sequential(Block())
    checkpoint_units(list(module.children()), "full")
    with torch.no_grad():
        assert not module.eval()(torch.ones(2, WIDTH)).requires_grad


def test_a_scripted_unit_is_unsupported() -> None:
    unit = torch.jit.script(nn.Linear(2, 2))
    with pytest.raises(EngineUnsupported, match="checkpointing=full is not supported for a scripted module"):
        checkpoint_units([unit], "full")


def test_selective_is_unsupported_where_a_kept_output_is_changed_in_place() -> None:
    unit = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Linear(2, 2))
    checkpoint_units([unit], "selective")
    with pytest.raises(EngineUnsupported, match="changes the output of a matrix product or convolution in place"):
        unit(torch.ones(1, 2)).sum().backward()
