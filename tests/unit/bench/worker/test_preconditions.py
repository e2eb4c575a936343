"""What a workload promises is checked where its reference is trained, and named where it is not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.measure.verdicts import disturbances
from bench.worker.bits import bits_sum, same_bits
from bench.worker.preconditions import checked_module, in_eval_mode
from results.model import Model, StepProperties
from results.record import Record
from tests import workload_cases
from tests.workload_cases import tiny_workloads
from workloads.base import Batch, WorkloadError
from workloads.mlp import MLP


class Faulty(MLP):
    """A workload with one fault."""

    def __init__(
        self,
        build: Callable[[], nn.Module] | None = None,
        batch: Callable[[Sequence[int]], Batch] | None = None,
        loss: Callable[[nn.Module, Batch], Tensor] | None = None,
    ) -> None:
        super().__init__(seed=0, data_dir=None, depth=2, width=8)
        self.build = build or super().build  # type: ignore[method-assign]
        self.batch = batch or super().batch  # type: ignore[method-assign,assignment]
        self.loss = loss or super().loss  # type: ignore[method-assign,assignment]


BUILT = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
CALLS = iter(range(1000))
DRAWN = torch.Generator()


def with_a_cached_layer() -> nn.Module:
    return nn.Sequential(BUILT[0], nn.Linear(8, 8))


def drawn_anew() -> nn.Module:
    module = nn.Linear(8, 8)
    nn.init.normal_(module.weight, generator=DRAWN)
    return module


def expanded() -> nn.Module:
    module = nn.Linear(8, 8)
    module.bias = nn.Parameter(torch.zeros(1).expand(8))
    return module


def noisy(indices: Sequence[int]) -> Batch:
    return torch.rand(len(indices), 8, generator=DRAWN), torch.zeros(len(indices), 8)


def counting() -> Callable[[Sequence[int]], Batch]:
    """Batches that count their calls, as an iterator behind ``batch`` would."""
    calls: Iterator[int] = iter(range(100))
    return lambda indices: (torch.full((len(indices), 8), float(next(calls))), torch.zeros(len(indices), 8))


def shuffled(indices: Sequence[int]) -> Batch:
    rows = torch.eye(len(indices), 8)
    return (rows if next(CALLS) else rows.flip(0)), torch.zeros(len(indices), 8)


def scaled_in_place(module: nn.Module, batch: Batch) -> Tensor:
    loss: Tensor = module(batch[0].mul_(2)).mean()
    return loss


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "a changed batch": ({"loss": scaled_in_place}, "a:b: the loss changes its batch in place"),
    "a loss per sample": (
        {"loss": lambda module, batch: module(batch[0]).mean(1)},
        r"a:b: the loss is torch.float32 of shape \(2,\); valid: a floating-point scalar",
    ),
    "a loss that is a number": ({"loss": lambda module, batch: 1.5}, "a:b: the loss is a float; valid:"),
    "the same module": ({"build": lambda: BUILT}, "a:b returned the same module twice"),
    "a cached layer": ({"build": with_a_cached_layer}, "a:b returned two modules that share the weight 0.weight"),
    "other weights": ({"build": drawn_anew}, "a:b returned a module with other values of weight"),
    "a lazy layer": ({"build": lambda: nn.Sequential(nn.LazyLinear(8))}, "whose weight 0.weight has no shape yet"),
    "an expanded weight": ({"build": expanded}, r"elements of bias that share memory \(strides \(0,\)\)"),
    "random samples": ({"batch": noisy}, r"a:b: batch\(\) returned other samples for the same indices"),
    "an iterator": ({"batch": counting()}, r"a:b: batch\(\) returned other samples for the same indices"),
    "a detached loss": (
        {"loss": lambda module, batch: module(batch[0]).mean().detach()},
        "the loss depends on no weight",
    ),
    "a loss times 0": (
        {"loss": lambda module, batch: module(batch[0]).mean() * 0},
        "the gradient of every weight is zero",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_promise_is_named_with_the_factory_and_what_is_valid(fault: str) -> None:
    parts, message = FAULTS[fault]
    with pytest.raises(WorkloadError, match=message) as raised:
        checked_module(Faulty(**parts), "a:b")
    assert "; valid: " in str(raised.value) and "\n" not in str(raised.value)


@tiny_workloads
def test_every_workload_of_ours_keeps_its_promises(name: str) -> None:
    module = checked_module(workload_cases.load(name), name)
    assert in_eval_mode(module) == []
    assert all(weight.grad is None for weight in module.parameters())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64, torch.complex64, torch.bool])
def test_bits_distinguish_tensors_whatever_their_strides(kind: torch.dtype) -> None:
    tensor = torch.zeros(2, 3, 4, 5).to(kind)
    changed = tensor.clone()
    changed[1, 2] = 1
    lying = changed.to(memory_format=torch.channels_last)
    assert bits_sum(tensor) != bits_sum(changed) == bits_sum(lying)
    assert same_bits(changed, lying) and not same_bits(tensor, changed)


def test_equal_values_do_not_cancel_out() -> None:
    assert bits_sum(torch.full((16,), 2.0)) != bits_sum(torch.zeros(16))


def test_the_check_leaves_random_generators_as_they_were() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    checked_module(Faulty(loss=lambda module, batch: nn.functional.dropout(module(batch[0])).mean()), "a:b")
    assert torch.equal(torch.rand(3), expected)


def test_parts_in_eval_mode_are_named_unless_they_are_frozen() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Dropout()), nn.Linear(2, 2))
    assert in_eval_mode(module) == []
    module[1].eval()
    assert in_eval_mode(module) == ["1"]
    module[1].requires_grad_(False)
    assert in_eval_mode(module) == []
    assert in_eval_mode(module.eval()) == ["the module"]


def test_eval_mode_is_a_warning_of_the_record() -> None:
    step = StepProperties(eval_mode=["the module"])
    model = Model("mine", "sample", 1, 1.0, [], 0, "noise", True, "", step=step)
    record = Record("id", "", {}, {}, {}, model=model)
    assert "in eval mode: the module" in disturbances(record)["eval_mode"]
