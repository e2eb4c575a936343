"""Latency and bandwidth between each two hosts, over the backend of the launch.

One rank of each host takes part, its first. In a round every host is in at most one pair, so that all pairs are
measured after one round less than there are hosts (circle method of a round-robin tournament).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from bench.measure.time.timing import synchronize, wait_for_all
from bench.placement import first_ranks
from results.health import HostLink

ROUND_TRIPS = 60
FIRST_BYTES = 1 << 18
LARGEST_BYTES = 1 << 26
TRIAL_S = 0.06
"""A message that takes so long is large enough: neither latency nor what a switch takes in one burst matters."""
TRIALS = 3
MOST_ROUNDS = 31
"""Up to 32 hosts, each two are measured; of more, each host with 31 others, so that a check ends within a minute."""


def measure(ranks_by_host: Sequence[int], device: torch.device) -> list[HostLink]:
    """The links on which this rank sent; none on a rank that is not its host's first. Collective."""
    first = first_ranks(ranks_by_host)
    where = device if dist.get_backend() == "nccl" else torch.device("cpu")
    rank, links = dist.get_rank(), []
    for pairs in rounds(len(first))[:MOST_ROUNDS]:
        wait_for_all(where)
        for one, other in pairs:
            if rank == first[one]:
                links.append(HostLink(one, other, *Link(first[other], where).sends()))
                Link(first[other], where).receives()
            elif rank == first[other]:
                Link(first[one], where).receives()
                links.append(HostLink(other, one, *Link(first[one], where).sends()))
    wait_for_all(where)
    return links


def rounds(hosts: int) -> list[list[tuple[int, int]]]:
    """Pairs of ``hosts`` so that each two meet once and no host is twice in a round."""
    seats: list[int | None] = [*range(hosts), *([None] if hosts % 2 else [])]
    all_rounds = []
    for _ in range(len(seats) - 1):
        half = len(seats) // 2
        facing = zip(seats[:half], reversed(seats[half:]), strict=True)
        all_rounds.append([(one, other) for one, other in facing if one is not None and other is not None])
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return all_rounds


class Link:
    """One end of the link to the rank ``peer``."""

    def __init__(self, peer: int, device: torch.device) -> None:
        self._peer, self._device = peer, device
        self._token = torch.zeros(1, dtype=torch.int64, device=device)

    def sends(self) -> tuple[float, float]:
        """One-way latency in seconds, and bytes per second from here to the peer, which ``receives``."""
        latency_s = min(self._trip_s(self._token) for _ in range(ROUND_TRIPS)) / 2
        message = torch.zeros(FIRST_BYTES, dtype=torch.uint8, device=self._device)
        while (time_s := self._announced_s(message)) < TRIAL_S and message.numel() < LARGEST_BYTES:
            message = message.repeat(2)
        time_s = min(time_s, *(self._announced_s(message) for _ in range(TRIALS - 1)))
        dist.send(self._token.fill_(0), self._peer)
        return latency_s, message.numel() / max(time_s - latency_s, 1e-9)  # the answer's way is no part of it

    def receives(self) -> None:
        """Answers what the peer's ``sends`` sends, until it is done."""
        for _ in range(ROUND_TRIPS):
            dist.recv(self._token, self._peer)
            dist.send(self._token, self._peer)
        while size := self._announced_size():
            message = torch.empty(size, dtype=torch.uint8, device=self._device)
            dist.send(self._token, self._peer)
            dist.recv(message, self._peer)
            dist.send(self._token, self._peer)

    def _announced_size(self) -> int:
        dist.recv(self._token, self._peer)
        return int(self._token)

    def _announced_s(self, message: Tensor) -> float:
        """Seconds from sending a message to its answer, once the peer has made room for it."""
        dist.send(self._token.fill_(message.numel()), self._peer)
        dist.recv(self._token, self._peer)
        synchronize(self._device)
        return self._trip_s(message)

    def _trip_s(self, message: Tensor) -> float:
        started = time.perf_counter()
        dist.send(message, self._peer)
        dist.recv(self._token, self._peer)
        synchronize(self._device)
        return time.perf_counter() - started
