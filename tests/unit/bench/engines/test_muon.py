"""Which weights Muon updates, and its two parts against torch's own optimizers."""

from __future__ import annotations

import copy
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from bench.engines.muon import hidden_matrices
from bench.engines.native.bucket import Bucket
from bench.engines.native.collectives import Collectives
from bench.engines.native.layout import lay_out
from bench.engines.native.policy import POLICIES
from bench.engines.native.sharded_muon import ShardedMuon
from bench.engines.optimizers import build_optimizer
from bench.engines.spec import EngineSpec, EngineUnsupported
from results.training_settings import Training

SPEC = EngineSpec(optimizer="muon", lr=0.01, weight_decay=0.2, beta2=0.9, world_size=2, device="cpu", backend="gloo")


def names(module: nn.Module) -> list[str]:
    chosen = hidden_matrices(module)
    return [name for name, weight in module.named_parameters() if id(weight) in chosen]


def test_matrices_of_hidden_layers_are_those_of_no_embedding_and_not_of_the_output() -> None:
    layers = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 16), nn.Conv1d(1, 1, 3), nn.LSTM(16, 4), nn.Linear(4, 3))
    assert names(layers) == ["1.weight", "3.weight_ih_l0", "3.weight_hh_l0"]
    tied = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 8), nn.Linear(8, 5))
    tied[2].weight = tied[0].weight
    assert names(tied) == ["1.weight"]
    assert names(nn.Linear(3, 3)) == []
    assert names(nn.Sequential(nn.BatchNorm1d(3))) == []


def train(module: nn.Module, *optimizers: torch.optim.Optimizer) -> list[Tensor]:
    for _ in range(3):
        module(torch.arange(5)).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        module.zero_grad()
    return list(module.parameters())


def test_one_optimizer_does_what_torchs_two_do() -> None:
    one = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 16), nn.Linear(16, 3))
    two = copy.deepcopy(one)
    built = build_optimizer(SPEC, one.parameters(), hidden_matrices(one), fused=True)
    matrix = two[1].weight
    rest = [weight for weight in two.parameters() if weight is not matrix]
    muon = torch.optim.Muon([matrix], lr=0.01, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=0.01, weight_decay=0.2, betas=(0.9, 0.9), fused=True)
    for mine, right in zip(train(one, built), train(two, muon, adamw), strict=True):
        assert torch.equal(mine, right)
    assert [list(built.state[weight]) for weight in one.parameters() if weight.shape == (16, 8)] == [
        ["momentum_buffer"]
    ]


def test_an_engine_that_does_not_say_which_weights_are_matrices_has_no_muon() -> None:
    with pytest.raises(EngineUnsupported, match="optimizer=muon is not supported: the engine does not say"):
        build_optimizer(Training(optimizer="muon"), [torch.zeros(2, 2)])


class TwoRanks:
    """One rank of two; what the other one would send is set beforehand."""

    def __init__(self, rank: int) -> None:
        self.rank, self.world_size = rank, 2
        self.whole = torch.empty(0)

    def all_gather(self, unsharded: Tensor) -> TwoRanks:
        assert torch.equal(unsharded.view(2, -1)[self.rank], self.whole.view(2, -1)[self.rank])
        unsharded.copy_(self.whole)
        return self

    def wait(self) -> None:
        pass


@pytest.mark.parametrize("rank", [0, 1])
def test_a_shard_is_updated_as_if_its_rank_had_the_matrices_whole(rank: int) -> None:
    """A matrix that is cut in the middle of a row, and one with the strides of its transpose."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(24, 10), (7, 9)]
    values = [torch.randn(shape, generator=generator) for shape in shapes]
    values[1] = values[1].T
    gradients = [torch.randn(value.shape, generator=generator) for value in values]
    whole = [nn.Parameter(value.clone()) for value in values]
    counts = [value.numel() for value in values]
    (layout,) = lay_out(counts, range(2), None, 2, 4)
    collectives = TwoRanks(rank)
    bucket = Bucket(
        layout,
        [nn.Parameter(value.clone()) for value in values],
        cast(Collectives, collectives),
        POLICIES[3],
        master_weights=False,
        has_matrices=True,
    )
    shard = nn.Parameter(bucket.sharded_param)
    flat = torch.zeros(layout.size)
    for number, gradient in enumerate(gradients):
        bucket.view_of(flat, number).copy_(gradient)
    mine = ShardedMuon(bucket, shard, SPEC)
    right = torch.optim.Muon(whole, lr=0.01, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
    momentum = torch.zeros_like(flat).lerp(flat, 1 - 0.95)
    collectives.whole = flat.lerp(momentum, 0.95).bfloat16()
    shard.grad = flat[bucket.own_elements].clone()
    for parameter, gradient in zip(whole, gradients, strict=True):
        parameter.grad = gradient
    mine.step()
    right.step()
    expected = torch.zeros(layout.size)
    for number, parameter in enumerate(whole):
        bucket.view_of(expected, number).copy_(parameter.detach())
    assert torch.equal(shard.detach(), expected[bucket.own_elements])
