"""Optimizers and learning rates, held against torch's own and against arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from analysis.theory.setting import optimizer_of
from bench.engines.adam8bit import parts
from bench.engines.optimizers import LearningRate, build_optimizer, factor, fused
from bench.measure.memory.step import stored
from results.training_settings import Training

GIVEN = {
    "sgd": {"momentum": 0.5, "weight_decay": 0.1},
    "adam": {"beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.1},
    "adamw": {"beta2": 0.95, "weight_decay": 0.2},
    "rmsprop": {"momentum": 0.5, "eps": 1e-6, "weight_decay": 0.1},
}
TORCH = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}


@pytest.mark.parametrize("name", GIVEN)
def test_hyperparameters_arrive_at_the_optimizer(name: str) -> None:
    given = GIVEN[name]
    built = build_optimizer(Training(optimizer=name, lr=0.1, **given), [torch.zeros(1)])
    arguments: dict[str, Any] = {key: value for key, value in given.items() if not key.startswith("beta")}
    if "beta2" in given:
        arguments["betas"] = (given.get("beta1", 0.9), given["beta2"])
    assert built.defaults == TORCH[name]([torch.zeros(1)], lr=0.1, **arguments).defaults


@pytest.mark.parametrize("settings", [{"optimizer": "sgd", "momentum": 0.0}, {"optimizer": "rmsprop", "momentum": 0.5}])
def test_momentum_decides_what_the_prediction_of_memory_counts(settings: dict) -> None:
    weight = torch.nn.Parameter(torch.ones(8))
    optimizer = build_optimizer(Training(**settings), [weight])
    weight.grad = torch.ones(8)
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    assert sum(value.numel() == 8 for value in kept) == optimizer_of(settings).moments


def test_moments_of_8_bits_train_about_as_those_of_32_and_take_the_predicted_bytes() -> None:
    """Two steps of 64 Ki weights, whole and in parts as a flat shard, against torch's Adam."""
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    start, gradients = torch.randn(2**16), torch.randn(2, 2**16)
    updated = {}
    for name, cuts in (("adam", [2**16]), ("adam8bit", [2**16]), ("shard", [*parts(2**16 - 100), 100])):
        rule = "adam8bit" if name == "shard" else name
        weight = start.clone()
        pieces = [torch.nn.Parameter(part) for part in weight.split(cuts)]
        optimizer = build_optimizer(Training(optimizer=rule, lr=0.01), pieces, foreach=False)
        rate = LearningRate(Training(lr=0.01, lr_schedule="linear", lr_steps=10), optimizer)
        for gradient in gradients:
            rate.advance()
            for piece, own in zip(pieces, gradient.split(cuts), strict=True):
                piece.grad = own.clone()
            optimizer.step()
        updated[name] = weight - start
        kept = [part for state in optimizer.state.values() for value in state.values() for part in stored(value)]
        rules = optimizer_of({"optimizer": rule})
        in_shard = rules.bytes_of_shard(2**16 - 100, 4) + rules.bytes_of(100, 4)
        expected = in_shard if name == "shard" else rules.bytes_of(2**16, 4)
        assert sum(part.nbytes for part in kept) == expected
    for name in ("adam8bit", "shard"):
        off = (updated[name] - updated["adam"]).norm() / updated["adam"].norm()
        assert 1e-6 < off < 0.05, (name, off)


def test_a_shard_is_cut_into_parts_of_whole_blocks() -> None:
    assert parts(100) == [100] and parts(600) == [512, 88] and parts(2**16 + 256) == [2**16, 256]
    assert optimizer_of({"optimizer": "adam8bit"}).bytes_of_shard(8192 + 88, 4) == 2 * (8192 + 128 + 1024 + 352) + 8


def test_the_learning_rate_rises_and_falls() -> None:
    linear = Training(lr_schedule="linear", lr_warmup=2, lr_steps=6)
    assert [factor(linear, step) for step in range(1, 8)] == [0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    cosine = Training(lr_schedule="cosine", lr_steps=4)
    assert [factor(cosine, step) for step in (2, 4)] == pytest.approx([0.5, 0.0])
    optimizer = build_optimizer(linear, [torch.zeros(1)])
    rate = LearningRate(linear, optimizer)
    rates = []
    for _ in range(3):
        rate.advance()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.5e-3, 1e-3, 0.75e-3])


def test_an_update_is_fused_where_torch_has_one() -> None:
    real, complex_ = [torch.zeros(2, requires_grad=True)], [torch.zeros(2, dtype=torch.complex64, requires_grad=True)]
    assert fused(Training(optimizer="adam"), real) == fused(Training(optimizer="sgd"), real) == {"fused": True}
    assert fused(Training(optimizer="adam"), real, sharded=True) == {"fused": True}
    assert fused(Training(optimizer="sgd"), real, sharded=True) == fused(Training(optimizer="rmsprop"), real) == {}
    assert fused(Training(optimizer="adam"), real + complex_) == {}
    complex_[0].grad = torch.ones_like(complex_[0])
    with pytest.raises(RuntimeError, match="floating point"):
        build_optimizer(Training(optimizer="adam"), complex_, fused=True).step()
