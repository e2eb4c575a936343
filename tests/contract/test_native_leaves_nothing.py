"""What native's stage 3 leaves on a module, from step to step: no hooks, no graphs, no weights that are whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.engines.base import RankContext
from bench.engines.native import adapter
from bench.engines.native.adapter import NativeEngine
from bench.engines.spec import EngineSpec, EngineUnsupported
from bench.worker import fake_group

RANKS = 4
Train = Callable[[nn.Module, list[nn.Module]], NativeEngine]


class Prompted(nn.Module):
    """A trained prompt that goes straight into a frozen unit, as in prompt tuning."""

    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8).requires_grad_(False)

        def forward(self, prompt: Tensor, inputs: Tensor) -> Tensor:
            return torch.tanh(self.layer(inputs + prompt))

    def __init__(self) -> None:
        super().__init__()
        self.prompt = nn.Parameter(torch.zeros(8))
        self.unit = self.Unit()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.unit(self.prompt, inputs)  # type: ignore[no-any-return]


class Retried(nn.Sequential):
    """Its first unit raises once in each forward, and is called again."""

    class Unit(nn.Linear):
        calls = 0

        def forward(self, inputs: Tensor) -> Tensor:
            self.calls += 1
            if self.calls % 2:
                raise ValueError("not yet")
            return super().forward(inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        try:
            hidden = self[0](inputs)
        except ValueError:
            hidden = self[0](inputs)
        return self[1](hidden)  # type: ignore[no-any-return]


class Copied(nn.Sequential):
    """Computes with a copy of its first unit."""

    def forward(self, inputs: Tensor) -> Tensor:
        self.copied: Any = copy.deepcopy(self[0])
        return self[1](self[0](inputs))  # type: ignore[no-any-return]


@pytest.fixture
def train() -> Iterator[Train]:
    """Rank 0 of a world of fake ranks, for three steps at stage 3."""
    try:
        fake_group.join_group(0, RANKS)
    except EngineUnsupported as error:
        pytest.skip(str(error))

    def run(module: nn.Module, units: list[nn.Module]) -> NativeEngine:
        engine = adapter.create()
        assert isinstance(engine, NativeEngine)
        spec = EngineSpec(stage=3, world_size=RANKS, device="cpu", backend="fake")
        engine.setup(module, units, spec, RankContext(0, RANKS, torch.device("cpu"), dist.HashStore()))
        for _ in range(3):
            engine.forward_backward((torch.ones(2, 8),), lambda net, batch: net(batch[0]).square().mean(), sync=True)
            engine.optimizer_step()
        return engine

    yield run
    dist.destroy_process_group()


def test_no_hook_stays_on_a_parameter_that_goes_into_a_unit(train: Train) -> None:
    module = Prompted()
    train(module, [module.unit])
    assert not module.prompt._backward_hooks


def test_a_unit_that_raised_once_is_freed_like_others(train: Train) -> None:
    unit = Retried.Unit(8, 8)
    module = Retried(unit, nn.Linear(8, 8))
    engine = train(module, list(module))
    with engine.schedule.phase("forward"):
        unit.calls = 1  # does not raise
        unit(torch.ones(2, 8))
        assert not engine.groups[0].buckets[0].is_unsharded


def test_a_copy_of_a_unit_has_its_values_and_nothing_of_the_engine(train: Train) -> None:
    first, last = nn.Linear(8, 8), nn.Linear(8, 8)
    before = first.weight.detach().clone()
    module = Copied(first, last)
    train(module, [first, last])
    assert type(module.copied._parameters) is dict
    assert module.copied.weight.shape == (8, 8) and bool(module.copied.weight.isfinite().all())
    assert not torch.equal(module.copied.weight, before)  # of the third step


def test_nothing_is_whole_after_a_step(train: Train) -> None:
    module = Prompted()
    engine = train(module, [module.unit])
    assert not any(bucket.is_unsharded for bucket in engine.buckets)
    assert bool(module.prompt.isnan().all())
