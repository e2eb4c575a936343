"""Whether all ranks have the same weights, for engines that guarantee it."""

from __future__ import annotations

import hashlib

import torch
import torch.distributed as dist
from torch import Tensor

from bench.engines.base import RankContext
from bench.worker.model import digest


def rank_difference(context: RankContext, weights: dict[str, Tensor]) -> dict[int, dict[str, float]]:
    """By rank and tensor how far a rank's weights are from rank 0's, of those that are not the same on all ranks.

    Collective. Of what is equal, only digests are exchanged.
    """
    names = sorted(weights)
    digests = [bytes.fromhex(digest([weights[name]])) for name in names]
    size = hashlib.sha256().digest_size
    mine = torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).view(len(names), size)
    every = gather(mine.to(context.device), context.world_size)
    differs = (every != every[0]).any(dim=2).any(dim=0).tolist()
    unequal = [name for name, other in zip(names, differs, strict=True) if other]
    if not unequal:
        return {}
    distances = []
    for name in unequal:
        right = weights[name].detach().clone(memory_format=torch.contiguous_format)
        dist.broadcast(right, 0)
        distances.append((weights[name].detach().double() - right.double()).norm())
    apart = gather(torch.stack(distances).to(context.device), context.world_size).tolist()
    return {rank: dict(zip(unequal, row, strict=True)) for rank, row in enumerate(apart)}


def gather(row: Tensor, ranks: int) -> Tensor:
    """Every rank's ``row``, stacked. Collective."""
    rows = [torch.empty_like(row) for _ in range(ranks)]
    dist.all_gather(rows, row)
    return torch.stack(rows)
