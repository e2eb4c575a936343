"""The arithmetic of averaging, on ranks, in plain torch.distributed."""

from __future__ import annotations

import torch
import torch.distributed as dist


def mean_of_gradients(rank: int, ranks: int) -> dict[str, float]:
    """Each rank's gradient of its own loss, and what all-reduce makes of them."""
    weight = torch.tensor(2.0, requires_grad=True)
    (weight * 2.0 * (rank + 1)).backward()
    assert weight.grad is not None
    mean = weight.grad.clone()
    dist.all_reduce(mean)
    return {"own": float(weight.grad), "mean": float(mean) / ranks}
