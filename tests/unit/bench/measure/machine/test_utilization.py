"""MFU and its measured ceiling, and energy: against cases with known answers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn

from analysis.metrics.utilization import joules_per_step
from analysis.table.frame import frame
from bench.measure.machine import peak_flops
from bench.measure.verdicts import disturbances
from bench.plan.jobs import Jobs, ceiling_key
from bench.worker.model import flops_per_sample
from results.launches import Ceiling
from tests.conftest import MakeCell
from tests.fakes import cell as fake_cell
from tests.fakes import cnn_model
from tests.fakes import launch as fake_launch

WIDTH, DEPTH, BATCH = 1024, 3, 256
WIDE = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": DEPTH, "width": WIDTH, "bias": False}


def test_mfu_is_the_models_rate_over_the_ceiling_and_a_rank_counts_once() -> None:
    # 64 samples a rank in 10 ms: 6,400 samples/s and rank; 1e6 FLOPs each, of 1.6e10: 0.4.
    records = [fake_cell(gpus=gpus, model=cnn_model(flops_per_unit=1e6)) for gpus in (1, 2)]
    for record in records:
        record.launches = [fake_launch(at, [[0.01] * 4] * record.config["gpus"]) for at in range(3)]
        record.ceiling = Ceiling(1.6e10, "float32", 512)
    without = fake_cell(stage=1)
    table = frame([*records, without]).sort_index()
    assert list(table["mfu"][:2]) == pytest.approx([0.4, 0.4])
    assert list(table["mfu_low"][:2]) == pytest.approx([0.4, 0.4])
    assert math.isnan(table["mfu"][2]) and math.isnan(table["ceiling_flops_per_s"][2])


def test_joules_are_those_of_the_device_or_unknown_and_never_zero() -> None:
    record = fake_cell(gpus=2)
    record.launches = [
        dataclasses.replace(fake_launch(at, [[0.01] * 4] * 2), conditions={"gpu_energy_j": joules, "cpu_energy_j": 2.0})
        for at, joules in enumerate((8.0, 12.0, 40.0))
    ]
    assert joules_per_step(record) == 0.5
    record.resolved["device"] = "cuda"
    assert joules_per_step(record) == 3.0
    assert frame([record])["joules_per_sample"][0] == pytest.approx(3.0 / 128)
    assert math.isnan(joules_per_step(fake_cell()))
    record.resolved["simulated"] = True
    assert math.isnan(joules_per_step(record))
    collectives = dataclasses.replace(record.launches[0], ranks=[])
    assert math.isnan(joules_per_step(fake_cell(0, 2, [collectives])))


class SteadyProduct:
    """Products on a machine whose rate doubles with the matrix until it ends at ``PEAK``."""

    PEAK = 40e9

    def __init__(self, size: int, dtype: str, device: torch.device) -> None:
        self.flops, self.rate = 2 * size**3, min(self.PEAK, 10e9 * size / 256)

    def run(self, count: int, *, one_clock: bool) -> float:
        return count * self.flops / self.rate


def test_matrices_are_doubled_until_that_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_flops, "Product", SteadyProduct)
    monkeypatch.setattr(peak_flops, "BUDGET_S", 10.0)
    peak = peak_flops.measure("amp_bf16", torch.device("cpu"))
    assert (peak.flops_per_s, peak.dtype, peak.size) == (pytest.approx(40e9), "bfloat16", 1024)
    monkeypatch.setattr(peak_flops, "BUDGET_S", 0.0)
    assert peak_flops.measure("fp32", torch.device("cpu")).size == 256


def test_what_a_library_takes_to_start_is_not_taken_from_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first product of 0.6 s, as a GPU's may be, would be the whole budget."""

    class Cold(SteadyProduct):
        started = False

        def run(self, count: int, *, one_clock: bool) -> float:
            first, Cold.started = not Cold.started, True
            return super().run(count, one_clock=one_clock) + 0.6 * first

    monkeypatch.setattr(peak_flops, "Product", SteadyProduct)
    warm = peak_flops.measure("fp32", torch.device("cpu"))
    monkeypatch.setattr(peak_flops, "Product", Cold)
    assert peak_flops.measure("fp32", torch.device("cpu")) == warm
    assert Cold.started and warm.size > 256


def test_products_in_a_fused_recurrent_layer_are_counted_and_without_any_there_is_no_mfu() -> None:
    length, inputs, hidden = 5, 16, 32

    class Recurrent:
        def batch(self, indices: range) -> tuple[torch.Tensor]:
            return (torch.ones(len(indices), length, inputs),)

        def loss(self, module: torch.nn.Module, batch: tuple[torch.Tensor]) -> torch.Tensor:
            return module(batch[0])[0].mean()

    forward = 2 * length * 4 * hidden * (inputs + hidden)
    total, uncounted = flops_per_sample(Recurrent(), torch.nn.LSTM(inputs, hidden, batch_first=True))
    assert 2 * forward < total <= 3 * forward and not uncounted
    record = fake_cell(model=cnn_model(flops_per_unit=0.0))
    record.ceiling = Ceiling(1.6e10, "float32", 512)
    assert math.isnan(frame([record])["mfu"][0])


class Meaned:
    """A module's outputs on ones, averaged."""

    def __init__(self, *shape: int) -> None:
        self._shape = shape

    def batch(self, indices: range) -> tuple[torch.Tensor]:
        return (torch.ones(len(indices), *self._shape),)

    def loss(self, module: torch.nn.Module, batch: tuple[torch.Tensor]) -> torch.Tensor:
        return module(batch[0]).mean()


@pytest.mark.parametrize("groups", [1, 8, 64])
def test_a_convolution_in_groups_is_counted_by_its_weights(groups: int) -> None:
    """2 FLOPs an element of the weight and place of the output, for forward and each gradient that is needed."""
    module = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3, padding=1, groups=groups))
    first, second = 2 * 3 * 64 * 8 * 8, 2 * 9 * 64 * (64 // groups) * 8 * 8
    assert flops_per_sample(Meaned(3, 8, 8), module) == (2 * first + 3 * second, {})


def test_a_transposed_convolution_is_counted_by_places_of_its_input() -> None:
    module = nn.Sequential(nn.Conv1d(8, 8, 1), nn.ConvTranspose1d(8, 16, 4, stride=2, groups=2))
    assert flops_per_sample(Meaned(8, 10), module) == (2 * (2 * 8 * 8 * 10) + 3 * (2 * 8 * 8 * 4 * 10), {})


def test_attention_is_counted_as_palm_does_without_what_is_computed_again() -> None:
    """12·H·Q·T a token: scores and their sum over values, forward and two gradients of each (appendix B)."""
    heads, head, length = 4, 8, 32

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Linear(head, 3 * head)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            query, key, value = self.before(inputs).chunk(3, -1)
            return nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)

    products = 2 * 2 * head * 3 * head * heads * length  # forward, and the weight's gradient alone
    total, _ = flops_per_sample(Meaned(heads, length, head), Attention())
    assert total - products == 12 * heads * head * length * length


def test_operations_faster_than_matrix_products_alone_are_not_to_be_relied_on() -> None:
    record = fake_cell(model=cnn_model(flops_per_unit=1e6))  # 64 samples in 10 ms: 6.4e9 a second
    for peak, verdict in ((5.4e9, False), (5.3e9, True)):
        record.ceiling = Ceiling(peak, "float32", 512)
        assert ("MFU is 12" in disturbances(record).get("implausible", "")) == verdict


def test_a_ceiling_belongs_to_device_dtype_threads_and_ranks(make_cell: MakeCell, tmp_path: Any) -> None:
    def key(**settings: Any) -> object:
        return ceiling_key(Jobs(make_cell(engine="native", **settings), tmp_path).ceiling())

    assert key(gpus=2, stage=1) == key(gpus=2, stage=3, workload="mlp", batch_size=64)
    assert len({key(), key(gpus=2), key(precision="bf16"), key(threads=2)}) == 4


def test_a_model_with_an_operator_that_nothing_counts_is_flagged_with_its_name() -> None:
    assert "flops_incomplete" not in disturbances(fake_cell())
    record = fake_cell(model=cnn_model(uncounted_operators={"aten::linalg_qr": 2}))
    assert disturbances(record)["flops_incomplete"].startswith("no formula for aten::linalg_qr (2 calls)")
