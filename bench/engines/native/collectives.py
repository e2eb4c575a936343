"""The collectives of DDP and ZeRO on flat buckets, started now and finished later.

On gloo a reduce-scatter is made of sends and receives: gloo's own costs as much as an all-reduce (2f·S bytes sent per
rank, f = (N-1)/N, instead of f·S). Here each rank sends each peer just the peer's shard: f·S, the least there is.
Shards are added in the order of ranks, so a sum is the same bit by bit at stages 1 to 3, at every bucket size and
overlap setting. An all-gather goes the same way. ``p2p_thread.py`` sends and receives while the rank computes.

An all-reduce is gloo's own, around a ring: 2f·S, in hardly any memory, and links are kept busy. A ring adds every
element in an order that depends on where in its bucket it lies. So among more than two ranks stage 0 rounds
otherwise than stages 1 to 3, and at one bucket size otherwise than at another.

gloo sends and receives from the host only: what lies on a GPU (several ranks on one) is copied there and back.

On NCCL they are NCCL's, on a stream of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from bench.engines.base import RankContext
from bench.engines.native.p2p_thread import Finish, Job, Wire, Works, all_at_once, wait

SMALL_BYTES = 1 << 19
"""Up to here a bucket is exchanged with all peers at once."""
PIECE = 1 << 16
"""Elements that are added at a time."""


class Collectives(Protocol):
    """Collectives over all ranks. Every rank must start the same ones in the same order."""

    rank: int
    world_size: int

    def reduce_scatter(self, whole: Tensor, out: Tensor) -> Finish:
        """Adds ``whole`` (N·S) over ranks; this rank's shard of the sum comes into ``out`` (S).

        ``out`` may be this rank's own part of ``whole``. ``whole`` must live, unchanged, until finished.
        """
        ...

    def all_gather(self, whole: Tensor) -> Finish:
        """Fills ``whole`` (N·S) with every rank's own part of it."""
        ...

    def all_reduce(self, whole: Tensor) -> Finish:
        """Adds ``whole`` over ranks, in place."""
        ...


def collectives(context: RankContext, backend: str) -> Collectives:
    """Those of the backend; ``fake`` calls what gloo or, on a GPU, NCCL would. The process group may be fake anyhow."""
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
        self._exchanges = 0
        self._wire = Wire()

    def reduce_scatter(self, whole: Tensor, out: Tensor) -> Finish:
        parts = list(whole.view(self.world_size, -1))
        own = parts[self.rank]
        received = whole.new_empty(self.world_size - 1, own.numel())
        rows = [*received[: self.rank], own, *received[self.rank :]]
        exchanged = self._start("reduce_scatter", self._exchange(send=parts, receive=rows), [whole, *rows])

        def finish() -> None:
            exchanged()
            add_in_order(rows, out, room_for_sum(out))

        return finish

    def all_gather(self, whole: Tensor) -> Finish:
        parts = list(whole.view(self.world_size, -1))
        spread = self._exchange(send=[parts[self.rank]] * self.world_size, receive=parts)
        return self._start("all_gather", spread, [whole])

    def all_reduce(self, whole: Tensor) -> Finish:
        work = dist.all_reduce(whole, async_op=True)
        return lambda: wait(work)

    def _exchange(self, send: list[Tensor], receive: list[Tensor]) -> Job:
        """Sends ``send[peer]`` to each peer and receives ``receive[peer]`` from it.

        Every rank begins with the one after it, and goes on so: no two send to the same one.
        """
        self._exchanges += 1
        tag = self._exchanges

        def exchange() -> Iterator[Works]:
            for distance in range(1, self.world_size):
                source, target = (self.rank - distance) % self.world_size, (self.rank + distance) % self.world_size
                yield dist.irecv(receive[source], source, tag=tag), dist.isend(send[target], target, tag=tag)

        return exchange

    def _start(self, name: str, job: Job, tensors: list[Tensor]) -> Finish:
        if self.world_size == 1 or tensors[0].nbytes <= SMALL_BYTES:
            return all_at_once(job)
        return self._wire.start(name, job, tensors)


class SimulatedCollectives(GlooCollectives):
    """The same sends and receives of a rank that hears nobody (``bench.worker.fake_group``, ``bench.worker.no_comm``).

    A fake receive leaves its buffer as it was. What a peer would send if it held what this rank holds comes into it,
    so that nothing is computed from uninitialised memory.
    """

    def _exchange(self, send: list[Tensor], receive: list[Tensor]) -> Job:
        exchange = super()._exchange(send, receive)

        def simulate() -> Iterator[Works]:
            yield from exchange()
            for source, tensor in enumerate(receive):
                if source != self.rank:
                    tensor.copy_(send[self.rank])

        return simulate


class StagedCollectives:
    """gloo's for buffers on a GPU, through copies on the host. The copies wait for the GPU."""

    def __init__(self, context: RankContext) -> None:
        self.rank = context.rank
        self.world_size = context.world_size
        self._host = GlooCollectives(context)

    def reduce_scatter(self, whole: Tensor, out: Tensor) -> Finish:
        here = torch.empty_like(whole, device="cpu").copy_(whole)
        reduced = here.new_empty(out.numel())
        return back(self._host.reduce_scatter(here, reduced), reduced, out)

    def all_gather(self, whole: Tensor) -> Finish:
        here = torch.empty_like(whole, device="cpu")
        here.view(self.world_size, -1)[self.rank] = whole.view(self.world_size, -1)[self.rank]
        return back(self._host.all_gather(here), here, whole)

    def all_reduce(self, whole: Tensor) -> Finish:
        here = torch.empty_like(whole, device="cpu").copy_(whole)
        return back(self._host.all_reduce(here), here, whole)


def back(finish: Finish, here: Tensor, there: Tensor) -> Finish:
    """``finish``, and then the result from the host to where it belongs."""

    def complete() -> None:
        finish()
        there.copy_(here)

    return complete


def room_for_sum(out: Tensor) -> Tensor | None:
    """What adding 16-bit numbers in fp32 needs."""
    return out.new_empty(2, min(PIECE, out.numel()), dtype=torch.float32) if out.itemsize == 2 else None


def add_in_order(rows: list[Tensor], out: Tensor, room: Tensor | None) -> None:
    """The sum of ``rows`` in their order, into ``out``, which may be one of them; changes the others.

    By pieces that stay in the processor's cache. 16-bit numbers are added in fp32, in the ``room_for_sum``.
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
    """NCCL on its own stream: a collective waits for what was enqueued before it, and what uses it waits for it.

    Buffers are allocated on the caller's stream and used on this one; they may be freed once ``Finish`` has made
    the caller's stream wait, since memory is then reused in the order of that stream.
    """

    def __init__(self, context: RankContext) -> None:
        self.rank = context.rank
        self.world_size = context.world_size
        self._stream = torch.cuda.Stream(context.device)

    def reduce_scatter(self, whole: Tensor, out: Tensor) -> Finish:
        return self._enqueue(lambda: dist.reduce_scatter_tensor(out, whole))

    def all_gather(self, whole: Tensor) -> Finish:
        own = whole.view(self.world_size, -1)[self.rank]
        return self._enqueue(lambda: dist.all_gather_into_tensor(whole, own))

    def all_reduce(self, whole: Tensor) -> Finish:
        return self._enqueue(lambda: dist.all_reduce(whole))

    def _enqueue(self, collective: Callable[[], object]) -> Finish:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            collective()
            done = torch.cuda.Event()
            done.record()
        return lambda: torch.cuda.current_stream().wait_event(done)
