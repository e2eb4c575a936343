"""How the processes of a launch meet: the store, the process group, the last barrier."""

from __future__ import annotations

import datetime
import os
import socket

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from bench.engines.base import RankContext
from bench.job import Job
from bench.measure.time import timing
from bench.worker import no_comm


def open_store(job: Job, rank: int, rendezvous: socket.socket) -> Store:
    """The store by which the processes of this launch meet, on the socket that the fork server opened."""
    host, port = rendezvous.getsockname()
    store: Store = dist.TCPStore(  # type: ignore[attr-defined]
        host,
        port,
        job.world_size,
        is_master=rank == 0,
        timeout=datetime.timedelta(seconds=job.timeout_s),
        wait_for_workers=False,
        master_listen_fd=os.dup(rendezvous.fileno()) if rank == 0 else None,
    )
    return store


def join_group(job: Job, rank: int, device: torch.device, store: Store) -> None:
    """Initialises the default process group, of all ranks and no server."""
    if job.silent:
        no_comm.join_group(rank, job.world_size)
        return
    if job.spec.backend == "fake":
        from bench.worker import fake_group  # private parts of torch, which nobody else needs

        fake_group.join_group(rank, job.spec.world_size)
        return
    dist.init_process_group(
        job.spec.backend,
        store=store,
        rank=rank,
        world_size=job.world_size,
        timeout=datetime.timedelta(seconds=job.timeout_s),
        device_id=device if job.spec.backend == "nccl" else None,
    )


def meet(job: Job, context: RankContext, where: str) -> None:
    """Returns once all ranks are here."""
    if job.silent:
        no_comm.meet(context.store, context.rank, context.world_size, where)
    else:
        timing.meet(context.device)
