"""A rank among ranks that are not there (``backend=fake``), or that it does not hear (``bench.worker.no_comm``).

torch's fake process group takes every other rank to hold what this one holds. So a collective has a result, made on
the spot from this rank's own data, and training continues with numbers that are finite and mean nothing.
"""

from __future__ import annotations

import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeProcessGroup, FakeStore

from bench.engines.spec import EngineUnsupported


def join_group(rank: int, world_size: int) -> None:
    """Initialises the default process group as one rank of a world that needs no other process.

    Raises EngineUnsupported where torch's fake group leaves collectives without a result, as DDP's reducer needs it.
    """
    options = FakeProcessGroup.Options()
    if not hasattr(options, "simulate_uniform_ranks"):
        raise EngineUnsupported(
            "torch's fake process group needs torch 2.15 or later: its collectives had no result. Valid: gloo, nccl"
        )
    options.simulate_uniform_ranks = True
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size, pg_options=options)
