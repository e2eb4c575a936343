"""Collectives that send nothing and wait for nobody: torch's fake process group, among ranks that all run.

It takes every other rank to hold what this one holds, and makes a collective's result on the spot. What is then
computed means nothing and should take as long, so it has to be finite and normal: a square root of NaN takes 6 times
as long, of a denormal number 30 times. Hence a receive, which would leave what memory held, gets what this rank sends
next, and denormal numbers are flushed to zero.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store


def join_group(rank: int, world_size: int) -> None:
    """Initialises the default process group of a rank that hears nobody. Raises EngineUnsupported with old torch."""
    from bench import simulated  # private parts of torch, which nobody else needs

    torch.set_flush_denormal(True)
    simulated.join_group(rank, world_size)
    echo_messages()


def echo_messages() -> None:
    """A message that this process would receive becomes the next of that shape that it sends."""
    receive, send = dist.irecv, dist.isend
    expected: list[Tensor] = []

    def irecv(tensor: Tensor, *arguments: Any, **named: Any) -> dist.Work | None:
        expected.append(tensor)
        return receive(tensor, *arguments, **named)

    def isend(tensor: Tensor, *arguments: Any, **named: Any) -> dist.Work | None:
        for waiting in expected:
            if waiting.shape == tensor.shape:
                waiting.copy_(tensor)
        expected.clear()
        return send(tensor, *arguments, **named)

    dist.irecv, dist.isend = irecv, isend


def meet(store: Store, rank: int, ranks: int, where: str) -> None:
    """Returns once all ``ranks`` have called it with ``where``; for rank 0, whose store it is, once all others may go.

    A barrier of the group would not wait.
    """
    if store.add(f"{where}/here", 1) == ranks:
        store.set(f"{where}/all here", "")
    store.wait([f"{where}/all here"])
    if store.add(f"{where}/told", 1) == ranks:
        store.set(f"{where}/all told", "")
    if rank == 0:
        store.wait([f"{where}/all told"])
