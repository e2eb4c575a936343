"""Instruments against cases whose answer is known."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench.engines.spec import EngineSpec
from bench.measure.memory.step import StepMemory, state_bytes
from bench.worker.feed import Pool
from bench.worker.loop import Share, TimedSteps, timed_steps
from bench.worker.parity import compare, weights_error
from bench.worker.single_process import Reference, train_reference
from tests.undisturbed import undisturbed

MIB = 1 << 20


def spec(**changes: object) -> EngineSpec:
    values: dict[str, object] = {
        "stage": 0,
        "world_size": 2,
        "device": "cpu",
        "backend": "gloo",
        "optimizer": "sgd",
        "lr": 0.1,
    }
    return EngineSpec(**(values | changes))  # type: ignore[arg-type]


def test_shares_cover_the_global_batch_once_at_every_world_size() -> None:
    def indices(world_size: int, accumulate: int) -> list[int]:
        shares = [Share(rank, world_size, 72 // world_size, accumulate) for rank in range(world_size)]
        return [index for share in shares for micro in share.micro_batches(3) for index in micro]

    assert indices(1, 1) == list(range(216, 288))
    assert all(indices(n, k) == indices(1, 1) for n in (2, 3, 4) for k in (1, 2, 3))


class Sleeper:
    """An engine whose phases take a set time."""

    def forward_backward(self, batch: object, loss_fn: object, *, sync: bool) -> Tensor:
        time.sleep(0.02)
        return torch.tensor(1.0)

    def optimizer_step(self) -> None:
        time.sleep(0.01)


def test_the_clock_separates_the_phases_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.barrier", lambda: None)

    def timed() -> TimedSteps:
        samples = timed_steps(Sleeper(), Pool([[()]]), 5, lambda module, batch: torch.zeros(()), torch.device("cpu"))  # type: ignore[arg-type]
        assert min(samples.forward_backward_s) >= 0.02
        assert min(samples.optimizer_s) >= 0.01
        assert samples.losses == [1.0] * 5
        return samples

    def claim(samples: TimedSteps) -> None:
        assert sum(samples.step_s) == pytest.approx(samples.wall_s, rel=0.05)

    undisturbed(timed, claim)


def test_a_cpu_step_of_known_size_is_counted_exactly() -> None:
    with StepMemory(torch.device("cpu")) as counter:
        kept = torch.zeros(MIB // 4)
        with counter.step({}, []):
            temporary = torch.zeros(2 * MIB // 4)
            del temporary
            temporary = torch.zeros(3 * MIB // 4)
            del temporary
        after = torch.zeros(9 * MIB // 4)
    memory = counter.result()
    assert (memory.rest_bytes, memory.step_peaks_bytes) == (MIB, [4 * MIB])
    del kept, after


def test_shared_storage_is_counted_once() -> None:
    whole = torch.zeros(100)
    assert state_bytes({"params": [whole[:50], whole[50:]], "grads": [whole], "optimizer": [torch.zeros(3)]}) == {
        "params": 400,
        "grads": 0,
        "optimizer": 12,
    }


def linear_problem() -> tuple[nn.Module, Callable[[nn.Module, tuple[Tensor, ...]], Tensor]]:
    torch.manual_seed(0)
    return nn.Linear(3, 1), lambda module, batch: (module(batch[0]) - batch[1]).square().mean()


def test_the_reference_is_gradient_descent_on_the_global_batch() -> None:
    module, loss_fn = linear_problem()
    inputs, targets = torch.randn(8, 3), torch.randn(8, 1)
    weight = module.weight.detach().double().clone()  # type: ignore[operator]
    bias = module.bias.detach().double().clone()  # type: ignore[operator]
    reference = train_reference(
        module, [[(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]], loss_fn, spec(), torch.device("cpu")
    ).reference
    residual = inputs.double() @ weight.T + bias - targets.double()
    expected = weight - 0.1 * 2 * (residual * inputs.double()).mean(0, keepdim=True)
    assert torch.allclose(reference.final["weight"].double(), expected, atol=1e-6)
    assert reference.losses[0] == pytest.approx(float(residual.square().mean()), rel=1e-5)


def test_parity_measures_the_error_against_the_way_that_training_went() -> None:
    end = {"w": torch.tensor([3.0, 4.0, 0.0, 0.0])}
    reference = Reference([1.0], {"w": torch.zeros(4)}, end, end)
    off = {"w": torch.tensor([3.0, 4.0, 0.5, 0.0])}
    assert weights_error(reference, off, torch.float32) == pytest.approx(0.1, rel=1e-4)
    assert compare(reference, [1.0], reference.final, "fp32").passed
    assert not compare(reference, [1.1], reference.final, "fp32").passed
    assert not compare(reference, [float("nan")], reference.final, "fp32").passed
    lost = Reference([1.0, 1.0], reference.initial, end, end)
    assert not compare(lost, [1.0, float("nan")], reference.final, "fp32").passed
    assert not compare(reference, [1.0], {"w": torch.full((4,), float("nan"))}, "fp32").passed


def test_a_reference_that_did_not_move_proves_nothing() -> None:
    still = Reference([1.0], *[{"w": torch.ones(2)}] * 3)
    assert weights_error(still, {"w": torch.ones(2)}, torch.float32) == float("inf")


def test_a_parameter_that_the_engine_lost_is_named() -> None:
    reference = Reference([1.0], {"w": torch.zeros(2)}, *[{"w": torch.ones(2)}] * 2)
    with pytest.raises(KeyError, match="lacks w"):
        weights_error(reference, {}, torch.float32)
