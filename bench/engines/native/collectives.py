"""Collectives on flat buckets. Each is started by a call and returns what is in flight; its ``wait`` ends it.

On gloo, a reduce-scatter consists of sends and receives. gloo's own costs as much as an all-reduce: 2f·S bytes sent per
rank, f = (N-1)/N, S the bytes of the bucket. Here each rank sends each peer only that peer's shard: f·S, the minimum.
Shards are added in the order of ranks. So a sum has the same bits at stages 1 to 3, at every bucket size and overlap
setting. An all-gather works in the same way. ``p2p_thread.py`` sends and receives while the rank computes.

An all-reduce is gloo's own, around a ring: 2f·S in hardly any memory, and links are kept busy. A ring adds each element
in an order that depends on its place in the bucket. So on more than two ranks, stage 0 rounds differently from stages 1
to 3, and differently at different bucket sizes.

gloo sends and receives host memory only. Buckets on a GPU (several ranks on one) are copied to the host and back.

On NCCL, collectives are NCCL's own, on a separate stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from bench.engines.base import RankContext
from bench.engines.native.p2p_thread import Exchange, P2PThread, PostedExchange, Transfers, wait_for

SMALL_BYTES = 1 << 19
"""Largest bucket that is exchanged with all peers at once."""
PIECE = 1 << 16
"""Elements that are added at a time."""


class InFlight(Protocol):
    """A collective that was started. Its buffers must live, unchanged by others, until ``wait`` returns."""

    def wait(self) -> None:
        """Waits until the result may be used (on a GPU: by what is enqueued on the current stream from now on)."""
        ...


class Reductions(Protocol):
    """Sums over all ranks. Every rank must start the same ones in the same order."""

    def reduce_scatter(self, unsharded: Tensor, shard: Tensor) -> InFlight:
        """Adds ``unsharded`` (N·S elements) over ranks; writes this rank's shard of the sum to ``shard`` (S).

        ``shard`` may be this rank's part of ``unsharded``.
        """
        ...

    def all_reduce(self, unsharded: Tensor) -> InFlight:
        """Adds ``unsharded`` over ranks, in place."""
        ...


class Gathers(Protocol):
    """All-gathers over some ranks. Every one of them must start the same ones in the same order."""

    rank: int
    """Its position among them."""
    world_size: int

    def all_gather(self, unsharded: Tensor) -> InFlight:
        """Fills ``unsharded`` (N·S elements) with each rank's own part of it."""
        ...


class Collectives(Reductions, Gathers, Protocol):
    """Collectives over all ranks."""

    def within(self, ranks: int) -> Gathers:
        """All-gathers over the group of this rank; groups have so many consecutive ranks. Every rank must call it."""
        ...

    def all_to_all(self, sent: Tensor, received: Tensor) -> InFlight:
        """Sends row ``peer`` of ``sent`` (N rows) to each peer; its row for this rank arrives in row ``peer`` of
        ``received``. Whether this rank's own row arrives there depends on the backend.
        """
        ...


def collectives(context: RankContext, backend: str) -> Collectives:
    """The collectives of a backend. ``fake`` calls those of gloo or, on a GPU, of NCCL.

    The process group may be fake also with another backend (``bench.worker.no_comm``).
    """
    if backend == "nccl" or (backend == "fake" and context.device.type == "cuda"):
        return NcclCollectives(context)
    if dist.get_backend() == "fake":
        return SimulatedCollectives(context)
    return StagedCollectives(context) if context.device.type == "cuda" else GlooCollectives(context)


class GlooCollectives:
    """Sends and receives between all pairs of ranks."""

    def __init__(self, context: RankContext) -> None:
        self.rank = context.rank
        self.world_size = context.world_size
        self._first = 0
        """The rank of the default group that is rank 0 here."""
        self._tags = count(1)
        self._p2p_thread = P2PThread()

    def within(self, ranks: int) -> Gathers:
        """Shares tags and thread: exchanges of any two ranks are numbered and posted in one order."""
        group = copy(self)
        group.rank, group.world_size = self.rank % ranks, ranks
        group._first = self.rank - group.rank
        return group

    def reduce_scatter(self, unsharded: Tensor, shard: Tensor) -> InFlight:
        parts = list(unsharded.view(self.world_size, -1))
        own = parts[self.rank]
        received = unsharded.new_empty(self.world_size - 1, own.numel())
        rows = [*received[: self.rank], own, *received[self.rank :]]
        exchange = self._start("reduce_scatter", self._exchange(send=parts, receive=rows), [unsharded, *rows])
        return ReduceScatter(exchange, rows, shard)

    def all_gather(self, unsharded: Tensor) -> InFlight:
        parts = list(unsharded.view(self.world_size, -1))
        exchange = self._exchange(send=[parts[self.rank]] * self.world_size, receive=parts)
        return self._start("all_gather", exchange, [unsharded])

    def all_to_all(self, sent: Tensor, received: Tensor) -> InFlight:
        exchange = self._exchange(send=list(sent), receive=list(received))
        return self._start("all_to_all", exchange, [sent, received])

    def all_reduce(self, unsharded: Tensor) -> InFlight:
        return AllReduce(dist.all_reduce(unsharded, async_op=True))

    def _exchange(self, send: list[Tensor], receive: list[Tensor]) -> Exchange:
        """Sends ``send[peer]`` to each peer and receives ``receive[peer]`` from it.

        Each rank starts with the rank after it and continues in that order, so no two ranks send to the same one.
        """
        tag = next(self._tags)

        def exchange() -> Iterator[Transfers]:
            for distance in range(1, self.world_size):
                source, target = (self.rank - distance) % self.world_size, (self.rank + distance) % self.world_size
                yield (
                    dist.irecv(receive[source], self._first + source, tag=tag),
                    dist.isend(send[target], self._first + target, tag=tag),
                )

        return exchange

    def _start(self, name: str, exchange: Exchange, tensors: list[Tensor]) -> InFlight:
        if self.world_size == 1 or tensors[0].nbytes <= SMALL_BYTES:
            return PostedExchange(exchange)
        return self._p2p_thread.start(name, exchange, tensors)


@dataclass(frozen=True)
class ReduceScatter:
    """A reduce-scatter in flight on gloo: this rank's shard arrives from every rank, and ``wait`` adds them."""

    exchange: InFlight
    rows: list[Tensor]
    """This rank's shard from each rank, in the order of ranks."""
    shard: Tensor

    def wait(self) -> None:
        self.exchange.wait()
        add_in_order(self.rows, self.shard, room_for_sum(self.shard))


@dataclass(frozen=True)
class AllReduce:
    """An all-reduce in flight on gloo."""

    work: dist.Work | None

    def wait(self) -> None:
        wait_for((self.work,))


class SimulatedCollectives(GlooCollectives):
    """The same sends and receives of a rank without peers (``bench.worker.fake_group``, ``bench.worker.no_comm``).

    A fake receive leaves its buffer unchanged. It is filled with what a peer that has this rank's data would send, so
    that nothing is computed from uninitialized memory.
    """

    def _exchange(self, send: list[Tensor], receive: list[Tensor]) -> Exchange:
        exchange = super()._exchange(send, receive)

        def simulate() -> Iterator[Transfers]:
            yield from exchange()
            for source, tensor in enumerate(receive):
                if source != self.rank:
                    tensor.copy_(send[self.rank])

        return simulate


class StagedGathers:
    """gloo's all-gathers for buckets on a GPU, through copies on the host. The copies wait for the GPU."""

    def __init__(self, host: Gathers) -> None:
        self.rank = host.rank
        self.world_size = host.world_size
        self._gathers = host

    def all_gather(self, unsharded: Tensor) -> InFlight:
        on_host = torch.empty_like(unsharded, device="cpu")
        on_host.view(self.world_size, -1)[self.rank] = unsharded.view(self.world_size, -1)[self.rank]
        return Staged(self._gathers.all_gather(on_host), on_host, unsharded)


class StagedCollectives(StagedGathers):
    """The same of all collectives."""

    def __init__(self, context: RankContext) -> None:
        self._host = GlooCollectives(context)
        super().__init__(self._host)

    def within(self, ranks: int) -> Gathers:
        return StagedGathers(self._host.within(ranks))

    def reduce_scatter(self, unsharded: Tensor, shard: Tensor) -> InFlight:
        on_host = torch.empty_like(unsharded, device="cpu").copy_(unsharded)
        reduced = on_host.new_empty(shard.numel())
        return Staged(self._host.reduce_scatter(on_host, reduced), reduced, shard)

    def all_to_all(self, sent: Tensor, received: Tensor) -> InFlight:
        on_host = torch.empty_like(sent, device="cpu").copy_(sent)
        arrived = torch.empty_like(on_host)
        return Staged(self._host.all_to_all(on_host, arrived), arrived, received)

    def all_reduce(self, unsharded: Tensor) -> InFlight:
        on_host = torch.empty_like(unsharded, device="cpu").copy_(unsharded)
        return Staged(self._host.all_reduce(on_host), on_host, unsharded)


@dataclass(frozen=True)
class Staged:
    """A collective in flight on the host; ``wait`` copies its result to the GPU."""

    on_host: InFlight
    result: Tensor
    target: Tensor

    def wait(self) -> None:
        self.on_host.wait()
        self.target.copy_(self.result)


def room_for_sum(out: Tensor) -> Tensor | None:
    """The memory that ``add_in_order`` needs to add 16-bit numbers in fp32."""
    return out.new_empty(2, min(PIECE, out.numel()), dtype=torch.float32) if out.itemsize == 2 else None


def add_in_order(rows: list[Tensor], out: Tensor, room: Tensor | None) -> None:
    """Writes the sum of ``rows``, added in their order, to ``out``, which may be one of them; overwrites the others.

    Works in pieces that fit the processor's cache. 16-bit numbers are added in fp32, in ``room``.
    """
    if len(rows) == 1:
        if out.data_ptr() != rows[0].data_ptr():
            out.copy_(rows[0])
        return
    for begin in range(0, out.numel(), PIECE):
        first, *others = (row[begin : begin + PIECE] for row in rows)
        place = out[begin : begin + PIECE]
        if room is None:
            for other in others[:-1]:
                first += other
            torch.add(first, others[-1], out=place)
        else:
            total, wide = room[:, : place.numel()]
            total.copy_(first)
            for other in others:
                total += wide.copy_(other)
            place.copy_(total)


class NcclCollectives:
    """NCCL on a separate stream: a collective waits for what was enqueued before it, and its users wait for it.

    Buffers are allocated on the caller's stream and used on this one. They may be freed after ``wait``, which makes the
    caller's stream wait: memory is then reused in the order of that stream.
    """

    def __init__(self, context: RankContext) -> None:
        self.rank = context.rank
        self.world_size = context.world_size
        self._stream = torch.cuda.Stream(context.device)
        self._group: dist.ProcessGroup | None = None
        """Of all-gathers; None: all ranks."""

    def within(self, ranks: int) -> Gathers:
        """On the same stream: collectives of a rank run in the order in which they are started."""
        starts = range(0, self.world_size, ranks)
        groups: list[Any] = [dist.new_group(list(range(first, first + ranks))) for first in starts]
        group = copy(self)
        group.rank, group.world_size, group._group = self.rank % ranks, ranks, groups[self.rank // ranks]
        return group

    def reduce_scatter(self, unsharded: Tensor, shard: Tensor) -> InFlight:
        return self._enqueue(lambda: dist.reduce_scatter_tensor(shard, unsharded))

    def all_gather(self, unsharded: Tensor) -> InFlight:
        own = unsharded.view(self.world_size, -1)[self.rank]
        return self._enqueue(lambda: dist.all_gather_into_tensor(unsharded, own, group=self._group))

    def all_to_all(self, sent: Tensor, received: Tensor) -> InFlight:
        return self._enqueue(lambda: dist.all_to_all_single(received, sent))

    def all_reduce(self, unsharded: Tensor) -> InFlight:
        return self._enqueue(lambda: dist.all_reduce(unsharded))

    def _enqueue(self, collective: Callable[[], object]) -> InFlight:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            collective()
            event = torch.cuda.Event()
            event.record()
        return Enqueued(event)


@dataclass(frozen=True)
class Enqueued:
    """A collective in flight on the communication stream, up to the event after it."""

    event: torch.cuda.Event

    def wait(self) -> None:
        torch.cuda.current_stream().wait_event(self.event)
