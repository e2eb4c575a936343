"""How the shards of a bucket come together: exact or in 8 bits, from all ranks or from a few neighbours.

``quantizes`` (setting quantize): each rank quantizes its shard. All ranks, that one included, compute with the same
dequantized numbers.

``neighbours`` (setting secondary_shard_size): M consecutive ranks keep a second copy of the parameters, each an M-th of
every bucket, so that they can gather within a host. A rank still has its shard of all ranks, which it updates:

    first gather after an update    from all ranks; each keeps its part of what arrived
    later ones, as of backward      from the neighbours

The copy has what was sent: packed elements where they are quantized. So each gather of a step has the same numbers.

Source: Wang et al., ZeRO++ (2023), sections 3.1 and 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.engines.native.collectives import Gathers, InFlight
from bench.engines.native.quantizer import dequantize, packed_bytes, quantize


class ParamGather:
    """Gathers the shards of one bucket."""

    def __init__(self, unsharded: Tensor, everyone: Gathers, neighbours: Gathers | None, *, quantizes: bool) -> None:
        """``unsharded`` is a tensor of the bucket's size, dtype and device."""
        self._everyone = everyone
        self._neighbours = neighbours
        self._quantizes = quantizes and unsharded.is_floating_point()
        self._is_current = False
        self.secondary: Tensor | None = None
        """This rank's part of the neighbours' copy; None without one."""
        if neighbours:
            self.secondary = torch.empty_like(self._own_part(self._message(self._parts(unsharded))))

    @property
    def is_exact(self) -> bool:
        """Whether what is gathered are the shards' numbers."""
        return not self._quantizes

    def start(self, unsharded: Tensor) -> Gathering:
        """Starts to fill ``unsharded``, which has this rank's shard in its place."""
        parts = self._parts(unsharded)
        message = self._message(parts)
        if self._neighbours and self.secondary is not None and self._is_current:
            self._own_part(message).copy_(self.secondary)
            return Gathering(self._neighbours.all_gather(message.view(-1)), message, parts, None)
        if self._quantizes:
            quantize(parts[self._everyone.rank], message[self._everyone.rank])
        return Gathering(self._everyone.all_gather(message.view(-1)), message, parts, self)

    def keep(self, message: Tensor) -> None:
        """Takes the neighbours' copy from what all ranks sent."""
        if self.secondary is not None:
            self.secondary.copy_(self._own_part(message))
            self._is_current = True

    def keep_written(self, unsharded: Tensor) -> None:
        """The same from parameters that forward may have written to; only where they are exact."""
        self.keep(self._parts(unsharded))

    def forget(self) -> None:
        """The shards have changed: the next gather is from all ranks."""
        self._is_current = False

    def _parts(self, unsharded: Tensor) -> Tensor:
        """One row per rank."""
        ranks = self._everyone.world_size
        return unsharded.view(ranks, unsharded.numel() // ranks)

    def _message(self, parts: Tensor) -> Tensor:
        """What is sent, one row per rank: the parts themselves, or memory for packed ones."""
        if not self._quantizes:
            return parts
        return parts.new_empty(parts.size(0), packed_bytes(parts.size(1)), dtype=torch.int8)

    def _own_part(self, message: Tensor) -> Tensor:
        """The rows that this rank keeps for its neighbours."""
        assert self._neighbours
        return message.view(self._neighbours.world_size, -1)[self._neighbours.rank]


@dataclass(frozen=True)
class Gathering:
    """A gather in flight; after ``wait`` the parameters are there."""

    exchange: InFlight
    message: Tensor
    parts: Tensor
    kept_by: ParamGather | None
    """Keeps a part of what arrives; None for a gather from neighbours."""

    def wait(self) -> None:
        self.exchange.wait()
        if self.kept_by:
            self.kept_by.keep(self.message)
        if self.message is not self.parts:
            for row, part in zip(self.message, self.parts, strict=True):
                dequantize(row, part)
