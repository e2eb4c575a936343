"""Where the ranks of a launch run: on which host, and as which of its ranks.

A launch is cut into slices, one per host, of consecutive ranks. On one machine there is one slice of all ranks.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

LOOPBACK_ADDRESS = "127.0.0.1"


def first_ranks(ranks_by_host: Sequence[int]) -> list[int]:
    """The first rank of each host."""
    return [sum(ranks_by_host[:host]) for host in range(len(ranks_by_host))]


def by_host(values: Sequence[T], ranks_by_host: Sequence[int]) -> list[list[T]]:
    """Values of ranks, host by host."""
    firsts = first_ranks(ranks_by_host)
    return [list(values[first : first + count]) for first, count in zip(firsts, ranks_by_host, strict=True)]


@dataclass(frozen=True)
class Placement:
    """Where one rank runs: all that it knows about hosts."""

    host: int = 0
    """Index of its host among those of the launch."""
    local_rank: int = 0
    """Its number among the ranks of its host."""
    local_ranks: int = 1
    """Ranks on its host."""
    hosts: int = 1
    """Hosts of the launch."""
    interface: str = ""
    """Network interface to the other hosts; empty where there are none."""

    @property
    def one_clock(self) -> bool:
        """Whether all ranks read the same monotonic clock, so that their times may be subtracted."""
        return self.hosts == 1

    @property
    def leads_host(self) -> bool:
        """Whether the rank reads, for all ranks of its host, what the host has once: processors, clocks, interface."""
        return self.local_rank == 0


@dataclass(frozen=True)
class Slice:
    """The part of a launch that one host runs."""

    counts: list[int]
    """Ranks of each host of the launch, in the order of the ranks."""
    host: int = 0
    servers: int = 0
    """Processes that are numbered after all ranks; they run on the first host."""
    address: str = LOOPBACK_ADDRESS
    """Where this host listens, if it has rank 0."""
    interface: str = ""
    store_address: str = ""
    """Of the store that rank 0's host opened; empty on that host, which opens it."""
    store_port: int = 0
    launch: int = 0
    """Number of the launch, which messages about it carry."""

    @property
    def numbers(self) -> list[int]:
        """The processes that this host starts."""
        first = sum(self.counts[: self.host])
        ranks = list(range(first, first + self.counts[self.host]))
        total = sum(self.counts)
        return ranks + (list(range(total, total + self.servers)) if self.host == 0 else [])

    def placement(self, number: int) -> Placement:
        """Of a process of this host; servers follow its ranks."""
        return Placement(
            self.host, self.numbers.index(number), self.counts[self.host], len(self.counts), self.interface
        )


@dataclass(frozen=True)
class Rendezvous:
    """Where the processes of a launch open their store."""

    address: str
    port: int
    listener: socket.socket | None = field(default=None, compare=False)
    """The listening socket, on the host of rank 0; its ranks inherit it, so that the port is never free."""
