"""Gathers of a bucket's shards among ranks that share a process: what is sent, to whom, and what all compute with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.engines.native.gather import ParamGather
from bench.engines.native.quantizer import BLOCK, dequantize, packed_bytes, quantize
from tests.shared_memory import SharedMemory

COUNT = 2 * BLOCK + 16
"""Elements of a shard."""


class World:
    """``ranks`` ranks, in groups of ``within``."""

    def __init__(self, ranks: int, within: int | None, *, quantizes: bool) -> None:
        self.everyone: list[Tensor] = []
        self.groups: list[list[Tensor]] = [[] for _ in range(ranks // within)] if within else []
        self.shards = [torch.randn(COUNT, generator=torch.Generator().manual_seed(rank)) for rank in range(ranks)]
        self.wholes = [torch.zeros(ranks * COUNT) for _ in range(ranks)]
        self.gathers = [
            ParamGather(
                self.wholes[rank],
                SharedMemory(rank, ranks, self.everyone),
                SharedMemory(rank % within, within, self.groups[rank // within]) if within else None,
                quantizes=quantizes,
            )
            for rank in range(ranks)
        ]

    def gather(self) -> list[Tensor]:
        """What each rank computes with."""
        for sent in (self.everyone, *self.groups):
            sent.clear()
        in_flight = []
        for rank, (gather, whole) in enumerate(zip(self.gathers, self.wholes, strict=True)):
            whole.fill_(float("nan")).view(len(self.wholes), -1)[rank] = self.shards[rank]
            in_flight.append(gather.start(whole))
        for one in in_flight:
            one.wait()
        return [whole.clone() for whole in self.wholes]

    def update(self) -> None:
        for gather, shard in zip(self.gathers, self.shards, strict=True):
            shard.add_(1.0)
            gather.forget()


def rounded(values: Tensor) -> Tensor:
    packed, out = torch.empty(packed_bytes(values.numel()), dtype=torch.int8), torch.empty(values.numel())
    quantize(values, packed)
    dequantize(packed, out)
    return out


@pytest.mark.parametrize("ranks", [1, 3])
def test_all_ranks_gather_the_same_numbers_and_their_own_shard_is_quantized_too(ranks: int) -> None:
    world = World(ranks, None, quantizes=True)
    expected = torch.cat([rounded(shard) for shard in world.shards])
    assert all(torch.equal(whole, expected) for whole in world.gather())
    assert all(message.shape == (ranks, packed_bytes(COUNT)) for message in world.everyone)
    assert world.gathers[0].secondary is None and not world.gathers[0].is_exact


@pytest.mark.parametrize("quantizes", [False, True])
def test_after_the_first_gather_neighbours_send_the_same_numbers_until_an_update(quantizes: bool) -> None:
    world = World(4, 2, quantizes=quantizes)
    for _ in range(2):
        right = torch.cat([rounded(shard) if quantizes else shard for shard in world.shards])
        for gather in range(3):
            assert all(torch.equal(whole, right) for whole in world.gather())
            assert (len(world.everyone), [len(sent) for sent in world.groups]) == (
                (4, [0, 0]) if gather == 0 else (0, [2, 2])
            )
        world.update()
    kept = packed_bytes(COUNT) if quantizes else COUNT
    assert [gather.secondary.numel() for gather in world.gathers if gather.secondary is not None] == [2 * kept] * 4


def test_what_forward_wrote_is_in_the_neighbours_copy() -> None:
    world = World(2, 2, quantizes=False)
    world.gather()
    for gather, whole in zip(world.gathers, world.wholes, strict=True):
        gather.keep_written(whole.add_(1.0))
    written = torch.cat(world.shards) + 1.0
    assert all(torch.equal(whole, written) for whole in world.gather())


def test_integers_are_gathered_as_they_are() -> None:
    gather = ParamGather(torch.zeros(4, dtype=torch.int64), SharedMemory(0, 1, []), None, quantizes=True)
    whole = torch.tensor([1, -2, 3, 1 << 40])
    gather.start(whole).wait()
    assert gather.is_exact and whole.tolist() == [1, -2, 3, 1 << 40]
