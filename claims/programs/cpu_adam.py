"""The time of a step of Adam on a CPU: DeepSpeed's CPUAdam, and torch's as a loop, with foreach and fused."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import torch
from torch import nn


def least_s(rank: int, ranks: int, sizes: Sequence[int], threads: int, steps: int) -> dict[str, dict[str, float]]:
    """The least seconds of a step, by elements and by optimizer; optimizers take turns."""
    del rank, ranks
    os.environ["DS_ACCELERATOR"] = "cpu"
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    torch.set_num_threads(threads)
    least = {}
    for size in sizes:
        optimizers = {
            "CPUAdam": DeepSpeedCPUAdam([parameter(size)], lr=1e-3, adamw_mode=False),
            "loop": torch.optim.Adam([parameter(size)], lr=1e-3, foreach=False),
            "foreach": torch.optim.Adam([parameter(size)], lr=1e-3, foreach=True),
            "fused": torch.optim.Adam([parameter(size)], lr=1e-3, fused=True),
        }
        times: dict[str, list[float]] = {name: [] for name in optimizers}
        for _ in range(steps):
            for name, optimizer in optimizers.items():
                before = time.perf_counter()
                optimizer.step()
                times[name].append(time.perf_counter() - before)
        least[str(size)] = {name: min(seconds[1:]) for name, seconds in times.items()}
    return least


def parameter(size: int) -> nn.Parameter:
    """A parameter with a gradient."""
    torch.manual_seed(0)
    made = nn.Parameter(torch.randn(size))
    made.grad = torch.randn(size)
    return made
