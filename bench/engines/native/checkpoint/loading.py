"""Loading: all checks, then this rank's state, piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.engines.native.checkpoint.index import Index, check_coverage, check_fit, pieces_of, read_index, shard_name
from bench.engines.native.checkpoint.local_state import (
    WEIGHT,
    LocalParameter,
    Part,
    bucket_parts,
    parameters_of,
    persistent_buffers,
    unbucketed_parts,
)
from bench.engines.native.checkpoint.shards import check_shard, open_shard
from bench.engines.views import flat, view_like

if TYPE_CHECKING:
    from bench.engines.native.adapter import NativeEngine


def read_checked(engine: NativeEngine, folder: Path) -> Index:
    """Reads the index and this rank's share of the files. Raises CheckpointError unless they are intact and fit."""
    index = read_index(folder)
    check_fit(engine, index)
    check_coverage(index)
    for name in list(index.files)[engine.context.rank :: engine.context.world_size]:
        check_shard(folder / name, index)
    return index


def restore(engine: NativeEngine, index: Index, folder: Path) -> None:
    """Fills this rank's state."""
    if engine.policy.shard_parameters:
        for group in engine.groups:
            group.reshard()
    create_optimizer_state(engine, index)
    opened: dict[str, dict[str, dict[str, Any]]] = {}

    def shard(name: str) -> dict[str, dict[str, Any]]:
        if name not in opened:
            opened[name] = open_shard(folder / name)
        return opened[name]

    own = parameters_of(engine)
    for part in bucket_parts(engine, own=False):
        fill(part, index, own[part.name], shard)
    for part in unbucketed_parts(engine, own=False):
        fill(part, index, own[part.name], shard)
        parameter = engine.names[part.name]
        parameter.copy_(view_like(part.tensors[WEIGHT], parameter))  # the part is a copy if it is not dense
    same_ranks = index.world_size == engine.context.world_size
    mine = shard(shard_name(engine.context.rank if same_ranks else 0, index.world_size))
    for name, buffer in persistent_buffers(engine).items():
        buffer.copy_(mine["buffers"][name])
    if same_ranks:
        restore_random_generators(engine, mine["random"])
    if engine.loss_scale.enabled and index.loss_scale is not None:
        engine.loss_scale.value = index.loss_scale["value"]
        engine.loss_scale.good_steps = int(index.loss_scale["good_steps"])


def create_optimizer_state(engine: NativeEngine, index: Index) -> None:
    """Creates the state as torch's optimizers do at their first step, all zeros; none if none was saved."""
    for entry in engine.optimizers:
        entries = {key: torch.tensor(value, dtype=torch.float32) for key, value in index.scalars.items()}
        entries |= {key: torch.zeros_like(entry.sharded_param) for key in index.state}
        entry.optimizer.load_state_dict(entry.optimizer.state_dict() | {"state": {0: entries} if entries else {}})


def fill(part: Part, index: Index, own: LocalParameter, shard: Callable[[str], dict[str, dict[str, Any]]]) -> None:
    """Copies the part's elements from the files that have them, rounded to the part's dtypes."""
    saved = index.parameters[part.name]
    if saved.strides != own.strides:
        full = {key: torch.empty(prod(own.shape), dtype=tensor.dtype) for key, tensor in part.tensors.items()}
        fill(Part(part.name, 0, full), index, saved, shard)
        for key, tensor in part.tensors.items():
            ordered = torch.empty_strided(own.shape, own.strides, dtype=tensor.dtype)
            ordered.copy_(full[key].as_strided(saved.shape, saved.strides))
            tensor.copy_(flat(ordered)[part.start : part.stop])
        return
    for start, stop, file in pieces_of(index, part.name):
        first, last = max(part.start, start), min(part.stop, stop)
        if first < last:
            piece = shard(file)["pieces"][part.name]
            for key, tensor in part.tensors.items():
                tensor[first - part.start : last - part.start].copy_(piece[key][first - start : last - start])


def restore_random_generators(engine: NativeEngine, states: dict[str, Tensor]) -> None:
    if "cpu" in states:
        torch.set_rng_state(states["cpu"].clone())
    if "cuda" in states and engine.context.device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].clone(), engine.context.device)


def refresh_unsharded(engine: NativeEngine) -> None:
    """Updates unsharded parameters from the shards, as after an update. Sharded ones are unsharded at their use."""
    for entry in engine.optimizers:
        entry.place.give_back()
    for bucket in engine.buckets:
        bucket.copy_in()
    if engine.policy.all_gathers_after_update:
        for all_gather in [bucket.start_all_gather() for bucket in engine.buckets]:
            all_gather.wait()
