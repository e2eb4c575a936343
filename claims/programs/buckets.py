"""The buckets that DDP makes of a model's gradients, from torch's own partition."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

import workloads


def sizes_by_cap(
    rank: int, ranks: int, factory: str, model: dict[str, object], caps_mib: list[float]
) -> dict[str, list[int]]:
    """Bytes of each bucket, in the order of reduction, by the cap in MiB. Order is that of the parameters, reversed."""
    del rank, ranks
    module = workloads.load(factory, seed=0, data_dir=None, options=model).build()
    parameters: list[Tensor] = [*reversed([one for one in module.parameters() if one.requires_grad])]
    return {f"{cap:g}": _sizes(parameters, int(cap * 2**20)) for cap in caps_mib}


def _sizes(parameters: list[Tensor], cap: int) -> list[int]:
    buckets, _ = dist._compute_bucket_assignment_by_size(parameters, [cap])  # type: ignore[attr-defined]
    return [sum(parameters[at].numel() * 4 for at in bucket) for bucket in buckets]
