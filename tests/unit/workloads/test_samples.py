"""What a workload draws, a pure function of global indices whatever the rank and the world size, and its loss."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.workload_cases import (
    NAMES,
    every_workload,
    load,
    same,
    shared,
    tiny_workloads,
)
from workloads import data
from workloads.base import seeded

pytestmark = pytest.mark.usefixtures("one_thread")


@every_workload
def test_a_batch_is_a_pure_function_of_global_indices(name: str) -> None:
    indices = [0, 3, 1, 3, 58]
    before = shared(name).batch(indices)
    shared(name).batch(range(4))
    assert same(before, shared(name).batch(indices))
    assert same(before, load(name).batch(indices))


@every_workload
def test_the_shards_of_a_batch_make_the_whole_batch(name: str) -> None:
    whole = shared(name).batch(range(8, 20))
    for ranks in (2, 3):
        shards = [
            shared(name).batch(range(20)[8 + rank * 12 // ranks : 8 + (rank + 1) * 12 // ranks])
            for rank in range(ranks)
        ]
        assert same(whole, tuple(torch.cat(parts) for parts in zip(*shards, strict=True)))


@every_workload
def test_indices_wrap_at_the_number_of_samples(name: str) -> None:
    samples = shared(name).info.data.samples
    assert same(shared(name).batch([0, 5]), shared(name).batch([samples, 3 * samples + 5]))
    assert not same(shared(name).batch([0]), shared(name).batch([samples - 1]))


@every_workload
def test_writing_to_a_batch_does_not_change_the_next_one(name: str) -> None:
    before = shared(name).batch([1, 2])
    expected = copy.deepcopy(before)
    for part in before:
        part.zero_()
    assert same(expected, shared(name).batch([1, 2]))


@every_workload
@pytest.mark.parametrize("per_rank", [4, 32, 64, 128, 256])
def test_no_two_ranks_draw_the_same_samples(name: str, per_rank: int) -> None:
    samples = shared(name).info.data.samples
    assert all((rank * per_rank) % samples != 0 for rank in range(1, 9))


def test_data_and_weights_are_drawn_apart() -> None:
    inputs, _ = data.vectors(5, width=8).batch(range(data.SAMPLES))
    assert not torch.equal(inputs, torch.randn(data.SAMPLES, 8, generator=seeded(5)))
    assert torch.equal(inputs, torch.randn(data.SAMPLES, 8, generator=seeded(5 ^ 0x64617461)))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "digits"])
def test_without_a_folder_the_data_is_synthetic_and_says_so(name: str) -> None:
    assert shared(name).info.data.synthetic
    assert "synthetic" in shared(name).info.data.description


def test_targets_are_the_inputs_shifted_by_one() -> None:
    inputs, targets = data.tokens(0, vocabulary=50, length=12).batch(range(5))
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert inputs.min() >= 0 and inputs.max() < 50


def test_a_token_has_at_most_four_successors() -> None:
    inputs, targets = data.tokens(0, vocabulary=50, length=64).batch(range(data.SAMPLES))
    pairs = {(int(a), int(b)) for a, b in zip(inputs.flatten(), targets.flatten(), strict=True)}
    assert max(sum(first == token for first, _ in pairs) for token in range(50)) <= 4


def test_masked_tokens_are_equally_many_in_each_sample() -> None:
    inputs, positions, targets = data.masked_tokens(0, vocabulary=50, length=20, masked=3).batch(range(data.SAMPLES))
    assert torch.equal((inputs == 49).sum(dim=1), torch.full((data.SAMPLES,), 3))
    assert torch.all(inputs.gather(1, positions) == 49)
    assert targets.max() < 49
    assert len(torch.unique(positions, dim=0)) > data.SAMPLES / 2


def test_few_rows_of_a_table_are_in_most_samples() -> None:
    _, indices, clicked = data.clicks(0, dense=2, tables=3, rows=1000).batch(range(10_000))
    assert indices.min() == 0 and indices.max() == 999
    for table in indices.unbind(dim=1):
        common = table.bincount(minlength=1000).sort(descending=True).values.cumsum(0) / len(table)
        assert common[0] == pytest.approx(0.1, abs=0.01) and common[29] == pytest.approx(0.5, abs=0.02)
    assert clicked.double().mean() == pytest.approx(0.25, abs=0.01)


@every_workload
def test_the_loss_is_a_finite_scalar(name: str) -> None:
    with torch.no_grad():
        loss = shared(name).loss(shared(name).build(), shared(name).batch(range(2)))
    assert loss.shape == () and loss.dtype == torch.float32 and bool(torch.isfinite(loss))


@tiny_workloads
def test_the_loss_is_the_mean_of_its_micro_batches(name: str) -> None:
    workload, module = shared(name), shared(name).build()
    with torch.no_grad():
        whole = workload.loss(module, workload.batch(range(8)))
        halves = [workload.loss(module, workload.batch(range(start, start + 4))) for start in (0, 4)]
    torch.testing.assert_close(whole, torch.stack(halves).mean())


@tiny_workloads
def test_the_loss_falls_on_samples_that_were_not_trained_on(name: str) -> None:
    workload, module = shared(name), shared(name).build()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)

    def unseen() -> float:
        with torch.no_grad():
            return float(workload.loss(module, workload.batch(range(200, 232))))

    before = unseen()
    for step in range(12):
        workload.loss(module, workload.batch(range(16 * step, 16 * step + 16))).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert unseen() < 0.97 * before
