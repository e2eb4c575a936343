"""The other rank of a two-rank world: it calls each collective as often as requested, so that one can be timed."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from bench.engines.base import RankContext
from bench.engines.native.collectives import Collectives, GlooCollectives

KINDS = ("all_reduce", "reduce_scatter", "all_gather")


def call(collectives: Collectives, kind: str, elements: int) -> Callable[[], None]:
    """One collective of native's over ``elements`` of fp32, from its start to its end."""
    whole = torch.ones(elements)
    out = torch.empty(elements // collectives.world_size)
    if kind == "reduce_scatter":
        return lambda: collectives.reduce_scatter(whole, out).wait()
    if kind == "all_gather":
        return lambda: collectives.all_gather(whole).wait()
    return lambda: collectives.all_reduce(whole.fill_(1.0)).wait()


def join(rank: int, meeting: str) -> Collectives:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = FileStore(meeting, 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    return GlooCollectives(RankContext(rank, 2, torch.device("cpu"), store))


def serve(meeting: str, requests: Connection) -> None:
    """The peer's life: ``(kind, elements, calls)`` until its pipe closes."""
    collectives = join(1, meeting)
    while True:
        try:
            kind, elements, calls = requests.recv()
        except EOFError:
            os._exit(0)
        again = call(collectives, kind, elements)
        for _ in range(calls):
            again()


@contextmanager
def world_of_two(folder: Path) -> Iterator[tuple[Collectives, Connection]]:
    """This process as rank 0, and the pipe that carries requests to the peer."""
    meeting = str(folder / "meeting")
    here, there = multiprocessing.Pipe()
    # Spawned: it would otherwise inherit a process group, and this end of its pipe.
    peer = multiprocessing.get_context("spawn").Process(target=serve, args=(meeting, there), daemon=True)
    peer.start()
    there.close()
    collectives = join(0, meeting)
    try:
        yield collectives, here
    finally:
        here.close()
        peer.join(timeout=10)
        if peer.is_alive():
            peer.terminate()
        dist.destroy_process_group()
