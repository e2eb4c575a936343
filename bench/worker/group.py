"""The rendezvous of a launch: its store, process group and barriers."""

from __future__ import annotations

import datetime
import os
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from bench.engines.base import RankContext
from bench.job import Job, TimingJob
from bench.measure.time import timing
from bench.placement import Placement, Rendezvous
from bench.worker import no_comm

INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def open_store(job: Job[Any], rank: int, rendezvous: Rendezvous) -> Store:
    """The store of this launch's processes, on the socket that the fork server of rank 0's host opened."""
    listener = rendezvous.listener if rank == 0 else None
    store: Store = dist.TCPStore(  # type: ignore[attr-defined]
        rendezvous.address,
        rendezvous.port,
        job.world_size,
        is_master=rank == 0,
        timeout=datetime.timedelta(seconds=job.timeout_s),
        wait_for_workers=False,
        master_listen_fd=None if listener is None else os.dup(listener.fileno()),
    )
    return store


def use_interface(placement: Placement) -> None:
    """Sends collectives over the interface to the other hosts, where there are any."""
    if placement.interface:
        os.environ.update(dict.fromkeys(INTERFACE_VARIABLES, placement.interface))


def join_group(job: Job[Any], rank: int, world_size: int, device: torch.device, store: Store) -> None:
    """Initializes the default process group, of all ranks and no server; ``world_size``: as the engine sees it."""
    if is_silent(job):
        no_comm.join_group(rank, job.world_size)
        return
    if job.backend == "fake":
        from bench.worker import fake_group  # private parts of torch

        fake_group.join_group(rank, world_size)
        return
    dist.init_process_group(
        job.backend,
        store=store,
        rank=rank,
        world_size=job.world_size,
        timeout=datetime.timedelta(seconds=job.timeout_s),
        device_id=device if job.backend == "nccl" else None,
    )


def is_silent(job: Job[Any]) -> bool:
    return isinstance(job, TimingJob) and job.silent


def wait_for_all(job: Job[Any], context: RankContext, where: str) -> None:
    """Returns once all ranks are here."""
    if is_silent(job):
        no_comm.wait_for_all(context.store, context.rank, context.world_size, where)
    else:
        timing.wait_for_all(context.device)
