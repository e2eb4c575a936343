"""Which backend carries tensors of which device, by an all-reduce of each."""

from __future__ import annotations

import datetime
from typing import Any

import torch
import torch.distributed as dist

CARRIED = "carried"


def matrix(rank: int, ranks: int) -> dict[str, str]:
    """For each backend and device ``carried``, or why not."""
    devices = ["cpu", *(["cuda"] if torch.cuda.device_count() >= ranks else [])]
    return {
        f"{backend}, {device}": carried(backend, device, rank, ranks)
        for backend in ("gloo", "nccl")
        for device in devices
    }


def carried(backend: str, device: str, rank: int, ranks: int) -> str:
    try:
        group: Any = dist.new_group(backend=backend, timeout=datetime.timedelta(seconds=20))
        values = torch.full((1000,), rank + 1.0, device=f"cuda:{rank}" if device == "cuda" else device)
        dist.all_reduce(values, group=group)
    except (RuntimeError, ValueError) as error:
        return str(error).splitlines()[0]
    return CARRIED if bool((values == ranks * (ranks + 1) / 2).all()) else "a wrong sum"
