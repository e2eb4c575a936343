"""Collectives among ranks that share a process: all ranks start, then each takes what the others have sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from bench.engines.native.collectives import Gathers, InFlight


@dataclass
class Arrival:
    """A collective in flight; ``wait`` copies what other ranks have sent."""

    take: Callable[[], None]

    def wait(self) -> None:
        self.take()


@dataclass
class SharedMemory:
    """Exact collectives of one of ``world_size`` ranks; ``sent`` has what each has started to send."""

    rank: int
    world_size: int
    sent: list[Tensor]

    def all_gather(self, unsharded: Tensor) -> InFlight:
        rows = unsharded.view(self.world_size, -1)
        self.sent.append(rows)

        def take() -> None:
            for peer, theirs in enumerate(self.sent):
                rows[peer].copy_(theirs[peer])

        return Arrival(take)

    def all_to_all(self, sent: Tensor, received: Tensor) -> InFlight:
        self.sent.append(sent)

        def take() -> None:
            for peer, theirs in enumerate(self.sent):
                if peer != self.rank:
                    received[peer].copy_(theirs[self.rank])

        return Arrival(take)

    def within(self, ranks: int) -> Gathers:
        raise NotImplementedError

    def reduce_scatter(self, unsharded: Tensor, shard: Tensor) -> InFlight:
        raise NotImplementedError

    def all_reduce(self, unsharded: Tensor) -> InFlight:
        raise NotImplementedError
