"""Reductions of quantized numbers among ranks that share a process."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.engines.native.quantized import QuantizedReductions
from bench.engines.native.quantizer import BLOCK, dequantize, packed_bytes, quantize
from tests.shared_memory import SharedMemory

COUNT = 2 * BLOCK + 16
"""Elements of a shard."""


def world(ranks: int) -> tuple[list[Tensor], list[QuantizedReductions]]:
    """What the ranks have started to send, and their collectives."""
    sent: list[Tensor] = []
    return sent, [QuantizedReductions(SharedMemory(rank, ranks, sent)) for rank in range(ranks)]


def rounded(values: Tensor) -> Tensor:
    packed, out = torch.empty(packed_bytes(values.numel()), dtype=torch.int8), torch.empty(values.numel())
    quantize(values, packed)
    dequantize(packed, out)
    return out


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_reduced_shard_is_the_sum_of_what_each_rank_quantized_once(ranks: int) -> None:
    sent, collectives = world(ranks)
    wholes = [torch.randn(ranks * COUNT, generator=torch.Generator().manual_seed(rank)) for rank in range(ranks)]
    before = [whole.clone() for whole in wholes]
    shards = [
        whole.view(ranks, -1)[rank] for rank, whole in enumerate(wholes)
    ]  # as at stage 1: its place in the bucket
    in_flight = [
        one.reduce_scatter(*pair) for one, pair in zip(collectives, zip(wholes, shards, strict=True), strict=True)
    ]
    for one in in_flight:
        one.wait()
    for rank, shard in enumerate(shards):
        expected = rounded(before[0].view(ranks, -1)[rank])
        for whole in before[1:]:
            expected = expected + rounded(whole.view(ranks, -1)[rank])
        assert torch.equal(shard, expected)
    assert all(message.shape == (ranks, packed_bytes(COUNT)) for message in sent)


def test_an_overflow_on_one_rank_is_seen_by_the_rank_that_updates_the_shard() -> None:
    _, collectives = world(2)
    wholes, shards = [torch.ones(2 * COUNT) for _ in range(2)], [torch.empty(COUNT) for _ in range(2)]
    wholes[0][COUNT + 5] = float("inf")
    in_flight = [
        one.reduce_scatter(*pair) for one, pair in zip(collectives, zip(wholes, shards, strict=True), strict=True)
    ]
    for one in in_flight:
        one.wait()
    assert shards[0].isfinite().all()
    assert shards[1][:BLOCK].isnan().all() and shards[1][BLOCK:].eq(2).all()
