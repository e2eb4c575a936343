"""Messages between workers and servers, and their process group.

The group has the workers as ranks 0 .. N-1 and the servers as N .. N+S-1; the default group is not touched. A worker
speaks first, with a header of three numbers (what, who, elements of the slice):

    JOIN    worker 0 adds its slice of the parameters, from which all start   answered with the parameters
    PUSH    and its slice of the gradients                                    answered with the parameters
    LEAVE                                                                     not answered

A slice is fp32 on the host. Gloo moves it only once the receiver has named its place, so no process buffers for
another, and who waits sleeps.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, ProcessGroupGloo, Store, Work

from bench.engines.native.layout import Layout, lay_out

HEADER_TAG, SLICE_TAG = 1, 2
"""Headers are received from whoever comes first, slices from whom a header named."""


class Kind(enum.IntEnum):
    """The message of a worker."""

    JOIN = 0
    PUSH = 1
    LEAVE = 2


@dataclass(frozen=True)
class Header:
    """The first part of each message of a worker."""

    kind: Kind
    worker: int
    elements: int

    def encode(self) -> Tensor:
        return torch.tensor([self.kind, self.worker, self.elements])

    @classmethod
    def decode(cls, numbers: Tensor) -> Header:
        kind, worker, elements = map(int, numbers)
        return cls(Kind(kind), worker, elements)


def lay_out_slices(counts: list[int], servers: int) -> Layout:
    """Parameters of ``counts`` elements in one flat tensor, cut into a slice for each server."""
    return lay_out(counts, range(len(counts)), None, servers, torch.float32.itemsize)[0]


class Group:
    """Point-to-point messages between host tensors. Every call but ``finish`` returns at once."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        timeout = cast(Any, store).timeout  # torch's stubs lack this, and the messages of a backend
        self._gloo: Any = ProcessGroupGloo(PrefixStore("parameter_server", store), rank, size, timeout)

    def send(self, tensor: Tensor, to: int, tag: int) -> Work:
        work: Work = self._gloo.send([tensor], to, tag)
        return work

    def receive(self, into: Tensor, source: int, tag: int) -> Work:
        work: Work = self._gloo.recv([into], source, tag)
        return work

    def receive_from_any(self, into: Tensor, tag: int) -> Work:
        work: Work = self._gloo.recv_anysource([into], tag)
        return work


def finish(started: Iterable[Work]) -> None:
    """Waits until all that was started has been sent or received. Raises RuntimeError if a peer is gone."""
    for work in started:
        work.wait()


class Servers:
    """The servers as a worker sees them."""

    def __init__(self, store: Store, worker: int, workers: int, layout: Layout) -> None:
        servers = layout.world_size
        self._group = Group(store, worker, workers + servers)
        self._worker = worker
        self._ends = [(workers + server, layout.shard(server)) for server in range(servers)]

    def join(self, parameters: Tensor) -> None:
        """Makes ``parameters`` worker 0's. Collective over workers and servers."""
        self._exchange(Kind.JOIN, parameters if self._worker == 0 else None, parameters)

    def push_and_pull(self, gradients: Tensor, parameters: Tensor) -> None:
        """Pushes ``gradients`` and waits until ``parameters`` are what the servers answered."""
        self._exchange(Kind.PUSH, gradients, parameters)

    def leave(self) -> None:
        finish([self._say(Kind.LEAVE, server, 0) for server, _ in self._ends])

    def _exchange(self, kind: Kind, payload: Tensor | None, answer: Tensor) -> None:
        started = []
        for server, own in self._ends:
            place = answer[own]
            started += [self._say(kind, server, place.numel()), self._group.receive(place, server, SLICE_TAG)]
            if payload is not None:
                started.append(self._group.send(payload[own], server, SLICE_TAG))
        finish(started)

    def _say(self, kind: Kind, server: int, elements: int) -> Work:
        return self._group.send(Header(kind, self._worker, elements).encode(), server, HEADER_TAG)


class Workers:
    """The workers as a server sees them."""

    def __init__(self, store: Store, server: int, servers: int, workers: int) -> None:
        self._group = Group(store, workers + server, workers + servers)

    def next_header(self) -> Header:
        """The header of the worker that speaks first; sleeps until one does."""
        numbers = torch.empty(3, dtype=torch.int64)
        finish([self._group.receive_from_any(numbers, HEADER_TAG)])
        return Header.decode(numbers)

    def receive(self, worker: int, into: Tensor) -> None:
        finish([self._group.receive(into, worker, SLICE_TAG)])

    def answer(self, workers: Iterable[int], parameters: Tensor) -> None:
        finish([self._group.send(parameters, worker, SLICE_TAG) for worker in workers])
