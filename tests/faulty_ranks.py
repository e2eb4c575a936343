"""Programs for claims.ranks that go wrong."""

from __future__ import annotations

import os
import signal
import time

import torch
import torch.distributed as dist


def killed(rank: int, ranks: int, victim: int | None) -> int:
    if rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    return ranks


def raising(rank: int, ranks: int) -> None:
    if rank == 1:
        raise ValueError("rank 1 is unhappy")
    dist.all_reduce(torch.zeros(1))


def slow(rank: int, ranks: int) -> None:
    time.sleep(60)
