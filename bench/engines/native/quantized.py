"""Reductions of 8-bit numbers (setting ``quantize``).

A reduce-scatter is an all-to-all: each rank quantizes the part of each rank, dequantizes the parts that it receives,
and adds them in fp32, in the order of ranks. So an element is quantized once, and not again by each rank that adds to
it. A rank quantizes its own part as well, which it does not send: all ranks count alike in a sum, and the work of a
rank does not depend on their number.

Source: Wang et al., ZeRO++ (2023), section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.engines.native.collectives import Collectives, InFlight
from bench.engines.native.quantizer import add_dequantized, packed_bytes, quantize


class QuantizedReductions:
    """Reduce-scatters of quantized numbers; an all-reduce is exact."""

    def __init__(self, exact: Collectives) -> None:
        self._exact = exact

    def reduce_scatter(self, unsharded: Tensor, shard: Tensor) -> InFlight:
        parts = unsharded.view(self._exact.world_size, shard.numel())
        sent = parts.new_empty(parts.size(0), packed_bytes(parts.size(1)), dtype=torch.int8)
        for part, packed in zip(parts, sent, strict=True):
            quantize(part, packed)
        received = torch.empty_like(sent)
        exchange = self._exact.all_to_all(sent, received)
        return QuantizedReduceScatter(exchange, sent, received, self._exact.rank, shard)

    def all_reduce(self, unsharded: Tensor) -> InFlight:
        return self._exact.all_reduce(unsharded)


@dataclass(frozen=True)
class QuantizedReduceScatter:
    """An all-to-all of packed parts in flight; ``wait`` adds those of this rank's shard."""

    exchange: InFlight
    sent: Tensor
    """The part of each rank."""
    received: Tensor
    """This rank's part, from each other rank."""
    rank: int
    shard: Tensor

    def wait(self) -> None:
        self.exchange.wait()
        rows = list(self.received)
        rows[self.rank] = self.sent[self.rank]
        add_dequantized(rows, self.shard)
