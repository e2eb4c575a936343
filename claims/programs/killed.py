"""A rank kills itself while others train with it, in plain torch."""

from __future__ import annotations

import os
import signal
import time

import torch
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

STEPS, LAST = 6, 3
"""Steps to do, and the one that the victim does not begin."""


def survived(rank: int, ranks: int, victim: int | None, zero: bool) -> dict[str, float | int | str]:
    """How many steps a survivor did, the error that ended it, and how long the step took that raised it."""
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Linear(8, 8))
    optimizer: torch.optim.Optimizer = (
        ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.1)
        if zero
        else torch.optim.Adam(model.parameters(), lr=0.1)
    )
    for step in range(STEPS):
        if rank == victim and step == LAST:
            os.kill(os.getpid(), signal.SIGKILL)
        begun = time.monotonic()
        try:
            optimizer.zero_grad()
            model(torch.ones(4, 8)).square().mean().backward()
            optimizer.step()
        except RuntimeError as error:
            return {"steps": step, "error": type(error).__name__, "seconds": time.monotonic() - begun}
    return {"steps": STEPS, "error": "", "seconds": 0.0}
