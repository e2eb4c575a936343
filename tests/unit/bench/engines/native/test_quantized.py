"""Reductions of quantized numbers among ranks that share a process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from bench.engines.native.collectives import Gathers, InFlight
from bench.engines.native.quantized import QuantizedReductions
from bench.engines.native.quantizer import BLOCK, dequantize, packed_bytes, quantize

COUNT = 2 * BLOCK + 16
"""Elements of a shard."""


@dataclass
class Mailbox:
    """What ranks have started to send; it arrives once they wait."""

    sent: list[Tensor] = field(default_factory=list)


@dataclass
class Arrival:
    """A collective in flight; ``wait`` copies what other ranks have sent."""

    take: Callable[[], None]

    def wait(self) -> None:
        self.take()


@dataclass
class SharedMemory:
    """Exact collectives of one of ``world_size`` ranks."""

    rank: int
    world_size: int
    mailbox: Mailbox

    def all_gather(self, unsharded: Tensor) -> InFlight:
        raise NotImplementedError

    def within(self, ranks: int) -> Gathers:
        raise NotImplementedError

    def all_to_all(self, sent: Tensor, received: Tensor) -> InFlight:
        self.mailbox.sent.append(sent)

        def take() -> None:
            for peer, theirs in enumerate(self.mailbox.sent):
                if peer != self.rank:
                    received[peer].copy_(theirs[self.rank])

        return Arrival(take)

    def reduce_scatter(self, unsharded: Tensor, shard: Tensor) -> InFlight:
        raise NotImplementedError

    def all_reduce(self, unsharded: Tensor) -> InFlight:
        raise NotImplementedError


def world(ranks: int) -> tuple[Mailbox, list[QuantizedReductions]]:
    mailbox = Mailbox()
    return mailbox, [QuantizedReductions(SharedMemory(rank, ranks, mailbox)) for rank in range(ranks)]


def rounded(values: Tensor) -> Tensor:
    packed, out = torch.empty(packed_bytes(values.numel()), dtype=torch.int8), torch.empty(values.numel())
    quantize(values, packed)
    dequantize(packed, out)
    return out


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_reduced_shard_is_the_sum_of_what_each_rank_quantized_once(ranks: int) -> None:
    mailbox, collectives = world(ranks)
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
    assert all(message.shape == (ranks, packed_bytes(COUNT)) for message in mailbox.sent)


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
