"""Sharding units of a person's own model: found, named, and what stays whole with them."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from workloads import WorkloadError, module
from workloads.units import Calls, calls_of, default_units, named_units, size_of

pytestmark = pytest.mark.usefixtures("one_thread")


def units_and_names(model: nn.Module, *inputs: Tensor) -> tuple[list[nn.Module], list[str]]:
    units = default_units(model, calls_of(model, lambda: model(*inputs)) if inputs else Calls())
    names = {id(part): name for name, part in model.named_modules()}
    return units, [names[id(unit)] for unit in units]


def shares(model: nn.Module, units: list[nn.Module]) -> tuple[float, float]:
    """Of the root, and of the largest unit."""
    sizes, total = [size_of(unit) for unit in units], size_of(model)
    return 1 - sum(sizes) / total, max(sizes) / total


@pytest.mark.parametrize(
    ("name", "root", "largest"),
    [
        ("resnet18", 0.01, 0.25),
        ("resnet50", 0.01, 0.25),
        ("vit_b_16", 0.01, 0.10),
        ("convnext_tiny", 0.01, 0.18),
        ("mobilenet_v3_large", 0.02, 0.25),
        ("efficientnet_b0", 0.02, 0.25),
        ("densenet121", 0.02, 0.25),
        ("vgg16", 0.01, 0.75),  # one linear layer has that much
    ],
)
def test_little_of_a_stock_model_stays_whole(name: str, root: float, largest: float) -> None:
    from torchvision import models

    with torch.device("meta"):
        model = getattr(models, name)(weights=None)
    units, _ = units_and_names(model)
    in_root, in_unit = shares(model, units)
    assert in_root <= root and in_unit <= largest, (in_root, in_unit)


def test_units_are_in_the_order_of_forward_and_do_not_nest() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 8)
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(6))
            self.stem = nn.Linear(8, 8)

        def forward(self, inputs: Tensor) -> Tensor:
            hidden = self.stem(inputs)
            for block in self.blocks:
                hidden = block(hidden)
            return self.head(hidden)  # type: ignore[no-any-return]

    _, names = units_and_names(Backwards(), torch.ones(2, 8))
    assert names == ["stem", *(f"blocks.{number}" for number in range(6)), "head"]


def test_encoder_and_decoder_are_both_split_into_blocks() -> None:
    model = nn.Transformer(16, 2, 5, 5, 32, dropout=0.0, batch_first=True)
    _, names = units_and_names(model, torch.ones(2, 3, 16), torch.ones(2, 3, 16))
    assert names == [f"{part}.layers.{number}" for part in ("encoder", "decoder") for number in range(5)]


def test_tied_weights_and_what_is_read_without_a_call_are_left_to_the_root() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.project = nn.Linear(8, 8)
            self.head = nn.Linear(8, 10, bias=False)
            self.head.weight = self.table.weight

        def forward(self, tokens: Tensor) -> Tensor:
            hidden = self.table(tokens)
            hidden = self.attention(hidden, hidden, hidden)[0]
            return self.head(hidden @ self.project.weight)  # type: ignore[no-any-return]

    _, names = units_and_names(Reads(), torch.zeros(2, 3, dtype=torch.long))
    assert names == ["attention"]


def test_experts_that_a_batch_skips_are_units_nevertheless() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

        def forward(self, inputs: Tensor) -> Tensor:
            return self.experts[2](inputs)  # type: ignore[no-any-return]

    _, names = units_and_names(Experts(), torch.ones(2, 8))
    assert sorted(names) == [f"experts.{number}" for number in range(4)]


def test_looking_for_units_changes_nothing_of_the_model() -> None:
    class Draws(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs * random.random()

    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), Draws(), nn.Linear(8, 8))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn, python = torch.get_rng_state(), random.getstate()
    units_and_names(model, torch.randn(4, 8, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(drawn, torch.get_rng_state()) and python == random.getstate()


def test_units_are_named_by_class_or_by_pattern() -> None:
    model = nn.Transformer(16, 2, 2, 2, 32, batch_first=True)
    by_class = named_units(model, ["TransformerEncoderLayer"], Calls())
    assert by_class == list(model.encoder.layers)
    assert named_units(model, ["encoder.layers.*"], Calls()) == by_class
    assert named_units(model, ["decoder", "decoder.layers.*"], Calls()) == [model.decoder]


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (["TransformerEncoderLaye"], "did you mean TransformerEncoderLayer?"),
        (["blocks.*"], r"'blocks\.\*' is no class or name of a module with parameters; valid: "),
    ],
)
def test_a_name_that_no_module_has_is_rejected(units: list[str], message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        named_units(nn.Transformer(16, 2, 1, 1, 32, batch_first=True), units, Calls())


@pytest.mark.parametrize("units", [[], [3], "Bottleneck"])
def test_units_that_are_no_list_of_names_are_rejected(units: Any) -> None:
    with pytest.raises(WorkloadError, match="is not valid; valid: null, a list of classes or patterns of names"):
        module.load(seed=0, data_dir=None, path="torchvision.models:resnet18", units=units)
