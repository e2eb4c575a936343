"""The collectives of DDP and ZeRO on flat buckets, started now and finished later.

On gloo they are made of sends and receives. gloo's own reduce-scatter costs as much as an all-reduce (2f·S bytes sent
per rank, f = (N-1)/N, instead of f·S), and its all-gather passes everything around a ring. Here each rank sends each
peer just the peer's shard: f·S, the least there is. Shards are added in the order of ranks, so a result is the same
bit by bit at every stage, bucket size and overlap setting. An all-reduce is one after the other, 2f·S; between two
ranks, where a sum has only one order, it is gloo's.

gloo sends and receives from the host only: what lies on a GPU (several ranks on one) is copied there and back.

On NCCL they are NCCL's, on a stream of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from bench.engines.base import RankContext

Finish = Callable[[], None]
"""Waits until a collective's result may be used (on a GPU: by what is enqueued from now on)."""


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
        self._started = 0

    def reduce_scatter(self, whole: Tensor, out: Tensor) -> Finish:
        parts = list(whole.view(self.world_size, -1))
        own = parts[self.rank]
        received = whole.new_empty(self.world_size - 1, own.numel())
        rows = [*received[: self.rank], own, *received[self.rank :]]
        works = self._exchange(send=parts, receive=rows)

        def finish() -> None:
            for work in works:
                work.wait()
            add_in_order(rows, out)

        return finish

    def all_gather(self, whole: Tensor) -> Finish:
        parts = list(whole.view(self.world_size, -1))
        works = self._exchange(send=[parts[self.rank]] * self.world_size, receive=parts)

        def finish() -> None:
            for work in works:
                work.wait()

        return finish

    def all_reduce(self, whole: Tensor) -> Finish:
        if self.world_size == 2:  # a sum of two has one order, and gloo's own needs one exchange of threads less
            work = dist.all_reduce(whole, async_op=True)
            return lambda: wait(work)
        reduced = self.reduce_scatter(whole, whole.view(self.world_size, -1)[self.rank])

        def finish() -> None:
            reduced()
            self.all_gather(whole)()

        return finish

    def _exchange(self, send: list[Tensor], receive: list[Tensor]) -> list[dist.Work]:
        """Sends ``send[peer]`` to each peer and receives ``receive[peer]`` from it; nearest peers first."""
        self._started += 1
        works: list[dist.Work | None] = []
        for distance in range(1, self.world_size):
            source, target = (self.rank - distance) % self.world_size, (self.rank + distance) % self.world_size
            works.append(dist.irecv(receive[source], source, tag=self._started))
            works.append(dist.isend(send[target], target, tag=self._started))
        return [work for work in works if work is not None]


class SimulatedCollectives(GlooCollectives):
    """The same sends and receives of a rank that hears nobody (``bench.simulated``, ``bench.measure.fake``).

    A fake receive leaves its buffer as it was. What a peer would send if it held what this rank holds comes into it,
    so that nothing is computed from uninitialised memory.
    """

    def _exchange(self, send: list[Tensor], receive: list[Tensor]) -> list[dist.Work]:
        works = super()._exchange(send, receive)
        for source, tensor in enumerate(receive):
            if source != self.rank:
                tensor.copy_(send[self.rank])
        return works


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


def wait(work: dist.Work | None) -> None:
    if work is not None:
        work.wait()


def add_in_order(rows: list[Tensor], out: Tensor) -> None:
    """The sum of ``rows`` in their order, into ``out``, which may be one of them. bf16 is added in fp32."""
    if len(rows) == 1:
        if out.data_ptr() != rows[0].data_ptr():
            out.copy_(rows[0])
        return
    if out.dtype in (torch.bfloat16, torch.float16):
        total = rows[0].float()
        for row in rows[1:]:
            total += row
        out.copy_(total)
        return
    total = rows[0]
    for row in rows[1:-1]:
        total += row
    torch.add(total, rows[-1], out=out)


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
