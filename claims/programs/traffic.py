"""What each process really sends in a step of training: engines of this suite, and the kernel's count beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from torch.distributed.distributed_c10d import Store, _get_default_store

import workloads
from bench.engines.base import Engine, RankContext, ServerContext
from bench.engines.native.adapter import create as native
from bench.engines.parameter_server.server import Server
from bench.engines.parameter_server.worker import Worker
from bench.engines.spec import EngineSpec
from bench.engines.torch.adapter import create as torch_own
from claims.programs.sockets import Counts, counts, since
from claims.suite import ROOT

WARMUP = 3
"""Steps before anything is counted; connections are made and buckets laid out in them."""
BATCH = 8
ENGINES: dict[str, Callable[[], Engine]] = {"native": native, "torch": torch_own, "parameter_server": Worker}


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
    spec = EngineSpec(world_size=workers, device="cpu", backend="gloo", options=options(engine, servers), **settings)
    among_workers = cast(dist.ProcessGroup, dist.new_group(list(range(workers))))
    store: Store = _get_default_store()
    if rank >= workers:
        server = Server(spec, ServerContext(rank - workers, servers, store))
        server.run()
        return dict.fromkeys(counts(), (0, 0))
    work = workloads.load(factory, seed=0, data_dir=None, options=model)
    module = work.build()
    trained = ENGINES[engine]()
    trained.setup(module, work.units(module), spec, RankContext(rank, workers, torch.device("cpu"), store))
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


def options(engine: str, servers: int) -> dict[str, Any]:
    """The engine's own settings, as they are by default but for the number of servers."""
    found = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "engine" / f"{engine}.yaml")))
    own = {name: value for name, value in found.items() if name not in ("name", "package")}
    return own | ({"servers": servers} if servers else {})
