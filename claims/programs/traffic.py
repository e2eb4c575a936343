"""What each process really sends in a step of training: engines of this suite, and the kernel's count of it."""

from __future__ import annotations

from typing import Any, cast

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

import workloads
from bench.engines.base import ServerContext
from bench.engines.parameter_server.server import Server
from claims.programs import engines
from claims.programs.sockets import Counts, counts, since

WARMUP = 3
"""Steps before anything is counted; connections are made and buckets laid out in them."""
BATCH = 8


def in_steps(
    rank: int,
    ranks: int,
    engine: str,
    factory: str,
    model: dict[str, Any],
    steps: int,
    settings: dict[str, Any],
    servers: int = 0,
) -> Counts:
    """What this process's connections carried in so many steps. The last ``servers`` of the processes are servers.

    A server, which does not know of steps, counts nothing: its connections are there, and counted at the workers.
    """
    workers = ranks - servers
    spec = engines.spec_of(engine, workers, own={"servers": servers} if servers else None, **settings)
    among_workers = cast(dist.ProcessGroup, dist.new_group(list(range(workers))))
    if rank >= workers:
        server = Server(spec, ServerContext(rank - workers, servers, _get_default_store()))
        server.run()  # its connections are open for as long as it is there
        return dict.fromkeys(counts(), (0, 0))
    work = workloads.load(factory, seed=0, data_dir=None, options=model)
    module = work.build()
    trained = engines.set_up(engine, module, work.units(module), spec, rank)
    before: Counts = {}
    for step in range(WARMUP + steps):
        if step == WARMUP:
            dist.barrier(among_workers)
            before = counts()
        first = BATCH * (step * workers + rank)
        trained.forward_backward(work.batch(range(first, first + BATCH)), work.loss, sync=True)
        trained.optimizer_step()
    dist.barrier(among_workers)
    gained = since(before, counts())
    trained.teardown()
    return gained
