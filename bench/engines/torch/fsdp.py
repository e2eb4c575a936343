"""Stages 2 and 3: fully_shard over all ranks, or over groups of them that are replicas of each other."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from bench.engines.base import RankContext
from bench.engines.compiler import compile_units
from bench.engines.precision import widen_weights
from bench.engines.spec import EngineSpec


def shard(module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> nn.Module:
    """``module``, cast to its precision, under fully_shard, unit by unit and what is left at the root."""
    policy = MixedPrecisionPolicy()
    if spec.precision == "bf16_master":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)
        widen_weights(module)
    over, offload = mesh(spec, context), offload_policy(spec)
    if spec.compile:
        compile_units(f"torch at stage={spec.stage}", units)
    for unit in units:
        fully_shard(unit, mesh=over, reshard_after_forward=spec.stage == 3, mp_policy=policy, offload_policy=offload)
    fully_shard(module, mesh=over, reshard_after_forward=spec.stage == 3, mp_policy=policy, offload_policy=offload)
    return module


def offload_policy(spec: EngineSpec) -> OffloadPolicy:
    """Shards of parameters, gradients and optimizer state in host memory, pinned where the device is a GPU."""
    return OffloadPolicy() if spec.offload == "none" else CPUOffloadPolicy(pin_memory=spec.device != "cpu")


def mesh(spec: EngineSpec, context: RankContext) -> DeviceMesh:
    """All ranks in a row; with ``shard_size``, replicas x ranks that share one (hybrid sharding, HSDP)."""
    kind, ranks = context.device.type, context.world_size
    size = spec.shard_size or ranks
    if size == ranks:
        return init_device_mesh(kind, (ranks,))
    return init_device_mesh(kind, (ranks // size, size), mesh_dim_names=("replicate", "shard"))
