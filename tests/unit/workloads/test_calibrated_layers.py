"""The closed forms of the workload whose truth is known, and what its options reject."""

from __future__ import annotations

import time

import pytest
import torch

from analysis.theory.calibrated import CalibratedStep, exposed_s
from workloads.base import WorkloadError
from workloads.calibrated import Calibrated as Workload

FOUR = CalibratedStep(layers=4, forward_s=0.01, backward_s=0.02)


def test_a_step_computes_for_the_sum_of_its_layers() -> None:
    assert FOUR.compute_s() == pytest.approx(0.12)
    assert FOUR.compute_s(factor=3) == pytest.approx(0.36)
    assert CalibratedStep(4, 0.01, 0.02, accumulate=2).compute_s() == pytest.approx(0.24)


@pytest.mark.parametrize(("bucket_s", "exposed"), [(0.0, 0.0), (0.005, 0.005), (0.02, 0.02), (0.03, 0.06)])
def test_only_what_backward_cannot_hide_is_exposed(bucket_s: float, exposed: float) -> None:
    """c where a bucket takes no longer than a layer's backward b, else L·c - (L-1)·b."""
    assert FOUR.step_s(bucket_s, overlap=True) == pytest.approx(0.12 + exposed)
    assert FOUR.step_s(bucket_s, overlap=False) == pytest.approx(0.12 + 4 * bucket_s)


def test_a_bucket_of_several_layers_is_ready_with_the_last_of_them() -> None:
    assert FOUR.ready_s() == pytest.approx([0.02, 0.04, 0.06, 0.08])
    assert FOUR.ready_s(layers_per_bucket=3) == pytest.approx([0.06, 0.08])
    assert exposed_s([0.06, 0.08], [0.05, 0.01]) == pytest.approx(0.04)


def test_efficiency_is_what_exposed_communication_leaves() -> None:
    assert FOUR.efficiency(0.0, overlap=True) == 1
    assert FOUR.efficiency(0.02, overlap=True) == pytest.approx(0.12 / 0.14)
    assert FOUR.efficiency(0.02, overlap=False) == pytest.approx(0.12 / 0.20)


def test_overlap_hides_all_communication_but_the_exposed() -> None:
    assert FOUR.overlapped_share(0.02) == pytest.approx(3 / 4)
    assert FOUR.overlapped_share(0.04) == pytest.approx(1 - (4 * 0.04 - 3 * 0.02) / 0.16)
    assert FOUR.overlapped_share(0.01, layers_per_bucket=4) == pytest.approx(0)


def test_the_closed_form_reads_a_records_configuration() -> None:
    workload = {"layers": 4, "forward_s": 0.01, "backward_s": 0.02, "per": "micro_batch"}
    config = {"workload": workload, "accumulate": 1, "batch_size": 8, "gpus": 2, "scaling": "strong"}
    assert CalibratedStep.of(config) == FOUR
    config["workload"] = workload | {"per": "sample"}
    assert CalibratedStep.of(config).compute_s() == pytest.approx(4 * FOUR.compute_s())
    assert CalibratedStep.of(config | {"accumulate": 2}).compute_s() == pytest.approx(4 * FOUR.compute_s())
    assert CalibratedStep.of(config | {"scaling": "weak"}).compute_s() == pytest.approx(8 * FOUR.compute_s())


def test_a_gradient_is_ready_at_the_end_of_its_layers_backward_and_not_before() -> None:
    module = Workload(seed=0, data_dir=None, layers=3, forward_s=0.0, backward_s=0.02, parameters_mib=0.001).build()
    ready: list[tuple[torch.Tensor, float]] = []
    for weight in module.parameters():
        weight.register_post_accumulate_grad_hook(lambda parameter: ready.append((parameter, time.perf_counter())))
    loss = module(torch.ones(1, 16)).sum()
    started = time.perf_counter()
    loss.backward()
    assert [id(weight) for weight, _ in ready] == [id(weight) for weight in reversed(list(module.parameters()))]
    for layer, (_, moment) in enumerate(ready):
        assert moment - started >= 0.02 * (layer + 1)


@pytest.mark.parametrize(("mib", "size_bytes"), [(0.25, 2**18), (0.0001, 128), (3, 3 * 2**20)])
def test_a_weight_has_the_size_that_was_asked_for_in_whole_rows(mib: float, size_bytes: int) -> None:
    module = Workload(seed=0, data_dir=None, layers=2, parameters_mib=mib).build()
    assert [weight.nbytes for weight in module.parameters()] == [size_bytes] * 2


def test_the_gradient_is_that_of_the_multiplication() -> None:
    module = Workload(seed=0, data_dir=None, layers=1, forward_s=0, backward_s=0, parameters_mib=0.001).build()
    (weight,) = module.parameters()
    inputs = torch.randn(3, 16, requires_grad=True)
    towards = torch.randn(3, 16)
    gradients = torch.autograd.grad((module(inputs) * towards).sum(), (inputs, weight))
    expected = torch.autograd.grad((inputs * weight.square().mean(0) * towards).sum(), (inputs, weight))
    torch.testing.assert_close(gradients, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, "calibrated: layers=0 is not valid"),
        ({"per": "batch"}, "calibrated: per='batch' is not valid; valid: micro_batch, sample"),
        ({"forward_s": -1}, "forward_s=-1 is not valid; valid: a number of seconds of at least 0"),
        ({"backward_s": "10ms"}, "backward_s='10ms' is not valid"),
        ({"forward_s": float("nan")}, "forward_s=nan is not valid"),
        ({"parameters_mib": 0}, "parameters_mib=0 is not valid; valid: a number of at least 0.0001"),
    ],
)
def test_an_options_value_is_rejected_with_what_is_valid(options: dict[str, object], message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        Workload(seed=0, data_dir=None, **options)  # type: ignore[arg-type]
