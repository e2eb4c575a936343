"""What a loss depends on besides parameters and batch, on modules whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.worker.own_state import OwnState, check_group, check_synchronized_norms, synchronized_norms
from results.model import Model, StepProperties
from workloads.base import WorkloadError


class Codebook(nn.Module):
    """Quantizes to a codebook that follows the batch, counts its calls, and keeps statistics that nothing reads."""

    codes: Tensor
    calls: Tensor
    fixed: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.register_buffer("codes", torch.linspace(-1, 1, 3))
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("fixed", torch.ones(4))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.norm(self.first(inputs)) * self.fixed
        nearest = self.codes[(hidden[..., None] - self.codes).abs().argmin(-1)]
        self.codes = self.codes * 0.9 + 0.1 * hidden.detach().square().mean()
        self.calls += 1
        return hidden + (nearest - hidden).detach()  # type: ignore[no-any-return]


def loss_of(module: nn.Module) -> Callable[[], Tensor]:
    return lambda: module(torch.linspace(-1, 1, 8).reshape(2, 4)).square().mean()


def test_a_buffer_that_forward_changes_and_reads_is_named_and_left_as_it_was() -> None:
    module = Codebook()
    own = OwnState(module)
    for _ in range(3):
        loss_of(module)()
    before = module.codes.clone()
    assert own.buffers(loss_of(module)) == ["codes"]
    assert torch.equal(module.codes, before) and module.calls == 3


def test_a_loss_that_is_not_repeatable_names_no_buffer() -> None:
    module = Codebook()
    own = OwnState(module)
    loss_of(module)()
    draws = iter(range(100))
    assert own.buffers(lambda: loss_of(module)() + next(draws)) == []


def test_questions_to_torch_distributed_are_noted() -> None:
    def asks(module: nn.Module, batch: Any) -> Tensor:
        loss: Tensor = module(batch).sum()
        if dist.is_initialized():
            dist.all_reduce(loss)
        return loss

    module, original = nn.Linear(2, 2), dist.is_initialized
    own = OwnState(module)
    own.watching(asks)(module, torch.ones(1, 2))
    assert own.queries == ["is_initialized"] and dist.is_initialized is original


def test_weights_that_are_trained_from_a_later_step_on_are_named() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    own = OwnState(module)
    own.check_trained("mine:make")
    module[1].requires_grad_(True)
    with pytest.raises(WorkloadError, match=r"mine:make: training changes requires_grad of 1\.bias and 1 more"):
        own.check_trained("mine:make")


def test_a_collective_in_the_loss_of_a_single_process_is_named() -> None:
    with pytest.raises(ValueError) as caught:
        dist.all_reduce(torch.ones(1))
    with pytest.raises(WorkloadError, match="mine:make: the loss communicates itself"):
        check_group("mine:make", caught.value)
    check_group("mine:make", ValueError("another"))


def test_synchronized_norms_are_named_and_rejected_on_cpus() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.SyncBatchNorm(2))
    assert synchronized_norms(module) == ["1"]
    check_synchronized_norms(module, "mine:make", "cuda")
    with pytest.raises(WorkloadError, match="mine:make: 1 is a SyncBatchNorm, which torch has for GPUs only"):
        check_synchronized_norms(module, "mine:make", "cpu")


def test_a_failure_has_its_likely_causes() -> None:
    model = Model("mine", "sample", 1, 0.0, [], 0, "noise", True, "")
    assert model.explained("it failed") == "it failed"
    dependent = replace(model, step=StepProperties(own_buffers=["codes", "sizes"], rank_queries=["get_rank"]))
    words = dependent.explained("it failed")
    assert words.startswith("it failed. Likely cause: codes and 1 more changes in forward")
    assert "the loss calls torch.distributed.get_rank" in words


def test_a_failure_of_a_sharded_model_names_a_parameter_that_is_read_without_a_gradient() -> None:
    model = Model("mine", "sample", 1, 0.0, [], 0, "noise", True, "", step=StepProperties(read_outside=["body.weight"]))
    assert model.explained("it failed") == "it failed", "ranks that have it whole can read it"
    words = model.explained("it failed", is_apart=False, is_sharded=True)
    assert words.startswith("it failed. Likely cause: body.weight is read without a gradient outside of the forward")
