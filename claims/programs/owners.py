"""Ownership of parameters: what each rank updates during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor

from bench.engines.native.adapter import NativeEngine
from bench.engines.torch.adapter import TorchEngine
from claims.programs import engines

Range = tuple[str, int, int]
"""Elements of a parameter, from and to."""
Shards = dict[Range, Tensor]
"""What this rank's optimizer updates, and where that is in the model."""
CHECKED_EVERY = 25
"""Steps after which the values of what a rank is seen to update are compared with the whole model's."""


def owners(rank: int, ranks: int, kinds: Sequence[tuple[str, int]], steps: int) -> dict[str, Any]:
    """What this rank updates at each step, from two starts and on two data sets; also an adaptive assignment."""
    results: dict[str, Any] = {}
    for name, stage in kinds:
        runs = [owned(name, stage, rank, ranks, steps, seed) for seed in (0, 1)]
        first = runs[0][0]
        results[f"{name} {stage}"] = {
            "owned": first,
            "changes": sum(ranges != first for run in runs for ranges in run),
        }
    return results | {"adaptive": {"changes": adaptive_changes(rank, ranks, steps)}}


def owned(name: str, stage: int, rank: int, ranks: int, steps: int, seed: int) -> list[list[Range]]:
    trained = engines.engine(name, stage, rank, ranks, engines.model(seed))
    ranges_by_step = []
    for step in range(steps + 1):
        ranges_by_step.append(sorted(own_shards(trained)))
        if step % CHECKED_EVERY == 0 and misplaced(trained):
            raise RuntimeError(f"{name} at stage {stage}, step {step}: a rank does not hold what it is seen to update")
        if step < steps:
            engines.train(trained, range(step, step + 1), rank, seed)
    return ranges_by_step


def own_shards(trained: Any) -> Shards:
    if isinstance(trained, NativeEngine):
        return native_shards(trained)
    assert isinstance(trained, TorchEngine)
    module = getattr(trained.module, "module", trained.module)
    own: set[int] | None = None
    if isinstance(trained.optimizer, ZeroRedundancyOptimizer):
        own = {id(weight) for group in trained.optimizer.optim.param_groups for weight in group["params"]}
    shards: Shards = {}
    for name, weight in module.named_parameters():
        if isinstance(weight, DTensor):
            local = weight.to_local().detach().flatten()
            start = first_row(weight) * weight[0].numel() if weight.dim() > 1 else first_row(weight)
            shards[name, start, start + local.numel()] = local
        elif own is None or id(weight) in own:
            shards[name, 0, weight.numel()] = weight.detach().flatten()
    return shards


def first_row(weight: DTensor) -> int:
    """The first row that this rank has: rows are split as by ``torch.chunk``."""
    each = -(-weight.shape[0] // weight.device_mesh.size())
    return each * weight.device_mesh.get_local_rank()


def native_shards(trained: NativeEngine) -> Shards:
    """By where the tensors of its optimizers are; at stage 3 they are no part of the model."""
    names = {id(weight): name for name, weight in trained.names.items()}
    shards: Shards = {}
    for optimizer in trained.optimizers:
        bucket, shard = optimizer.bucket, optimizer.sharded_param
        start_of_view = (shard.data_ptr() - bucket.unsharded_param.data_ptr()) // 4
        first = bucket.own_elements.start if bucket.shard_has_memory else start_of_view
        for slot, parameter in zip(bucket.layout.slots, bucket.parameters, strict=True):
            start, stop = max(slot.offset, first), min(slot.offset + slot.count, first + shard.numel())
            if start < stop:
                place = names[id(parameter)], start - slot.offset, stop - slot.offset
                shards[place] = shard.detach()[start - first : stop - first]
    return shards


def misplaced(trained: Any) -> int:
    """Elements whose value is not that of the model where they are seen to belong."""
    whole = {name: weight.detach().flatten() for name, weight in trained.full_state_dict().items()}
    return sum(
        int((tensor != whole[name][start:stop]).sum()) for (name, start, stop), tensor in own_shards(trained).items()
    )


def adaptive_changes(rank: int, ranks: int, steps: int) -> int:
    """Steps at which parameters would be assigned otherwise than at first if the size of gradients decided."""
    module, assignments = engines.model(), []
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    for step in range(steps):
        engines.mean_gradients(module, step, rank, ranks)
        sizes = [float(engines.gradient_of(weight).norm()) for weight in module.parameters()]
        order = sorted(range(len(sizes)), key=lambda at: -sizes[at])
        assignments.append(sorted(order[rank::ranks]))
        optimizer.step()
    return sum(assignment != assignments[0] for assignment in assignments)
