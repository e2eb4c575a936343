"""DDP where the last rank has fewer batches, with Join and without, in plain torch."""

from __future__ import annotations

import contextlib
import datetime

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel

PATIENCE_S = 3.0
"""How long a rank waits for another."""


def trained(rank: int, ranks: int, batches: int, fewer: int, join: bool) -> dict[str, str | int]:
    """How many steps a rank did, and the error that ended it, if any. The last rank has ``fewer`` batches."""
    torch.manual_seed(0)
    group = dist.new_group(timeout=datetime.timedelta(seconds=PATIENCE_S))
    model = DistributedDataParallel(nn.Linear(8, 8), process_group=group)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    done = 0
    try:
        with Join([model]) if join else contextlib.nullcontext():
            for _ in range(fewer if rank == ranks - 1 else batches):
                optimizer.zero_grad()
                model(torch.ones(4, 8)).square().mean().backward()
                optimizer.step()
                done += 1
    except RuntimeError as error:
        return {"steps": done, "error": type(error).__name__}
    return {"steps": done, "error": ""}
