"""Runs without communication: torch's fake process group, among ranks that all run.

It takes every other rank to hold what this one holds, and makes a collective's result on the spot. What is then
computed means nothing and should take as long, so it has to be finite and normal: a square root of NaN takes 6 times
as long, of a denormal number 30 times. Hence denormal numbers are flushed to zero, and the engine whose receives would
leave stale memory fills them itself (``SimulatedCollectives`` of the native engine).
"""

from __future__ import annotations

import torch
from torch.distributed.distributed_c10d import Store

from bench.measure.time.timing import all_here


def join_group(rank: int, world_size: int) -> None:
    """Initialises the process group of a rank without communication. Raises EngineUnsupported with old torch."""
    from bench.worker import fake_group  # private parts of torch

    torch.set_flush_denormal(True)
    fake_group.join_group(rank, world_size)


def wait_for_all(store: Store, rank: int, ranks: int, where: str) -> None:
    """Returns once all ``ranks`` have called it with ``where``; for rank 0, whose store it is, once all others may go.

    A barrier of the group would not wait.
    """
    all_here(store, ranks, where)
    if store.add(f"{where}/released", 1) == ranks:
        store.set(f"{where}/all released", "")
    if rank == 0:
        store.wait([f"{where}/all released"])
