"""Whether what differs between replicas stays different: DistributedDataParallel in plain torch."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def gap_after(rank: int, ranks: int, steps: int, wrapped_first: bool) -> float:
    """How far rank 1's weights, which 1 was added to, are from rank 0's after so many steps.

    It was added after the model was wrapped, or before.
    """
    torch.manual_seed(0)
    module = nn.Linear(4, 2, dtype=torch.float64)
    model = DistributedDataParallel(module) if wrapped_first else module
    with torch.no_grad():
        module.weight.add_(float(rank == 1))
    if not wrapped_first:
        model = DistributedDataParallel(module)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    torch.manual_seed(rank)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
    theirs = module.weight.detach().clone()
    dist.broadcast(theirs, 0)
    return float((module.weight.detach() - theirs).abs().max())
