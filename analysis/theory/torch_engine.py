"""Engine ``torch``: what DDP, ZeroRedundancyOptimizer and fully_shard keep and send.

Stage 0 is DistributedDataParallel, 1 adds ZeroRedundancyOptimizer, 2 is ``fully_shard`` with
``reshard_after_forward=False`` and 3 with resharding. Bytes are exact for tensors of the rank that holds
most; allocators round up beyond that. State is taken between backward and update, gradients alive.
"""

from __future__ import annotations

import heapq
from math import ceil, prod

from analysis.theory.setting import Setting, elements
from analysis.theory.theory import Copied, Theory
from results.model import Parameter, element_count

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}


def state(setting: Setting) -> dict[str, int] | None:
    """Bytes of model state by kind in device memory of the largest rank."""
    if setting.stage <= 1:
        return _replicated(setting)
    kept = _sharded(setting)
    return kept if setting.offload == "none" else dict.fromkeys(kept, 0) | {"buffers": kept["buffers"]}


def host(setting: Setting) -> dict[str, int]:
    """With offload (fully_shard's CPUOffloadPolicy), all sharded state is in host memory."""
    if setting.offload == "none":
        return {}
    return {kind: size for kind, size in _sharded(setting).items() if kind != "buffers"}


def copied(setting: Setting) -> Copied | None:
    """On a CPU with offload, fully_shard makes no copies. None on a GPU: no formula was checked."""
    return Copied(0, 0) if setting.offload != "none" and setting.device == "cpu" else None


def zero_partition(sizes: list[int], world_size: int, first: int = 0) -> list[list[int]]:
    """The parameters that each rank updates at stage 1: ``ZeroRedundancyOptimizer._partition_parameters``.

    Whole parameters, largest first (equal ones in their given order), each to the rank that holds the fewest
    elements so far, the lowest rank among equals. The ``first`` ones are a group of their own and come before all
    others. Returns indices into ``sizes``.
    """
    ranks: list[list[int]] = [[] for _ in range(world_size)]
    load = [(0, rank) for rank in range(world_size)]
    for index in sorted(range(len(sizes)), key=lambda index: (index >= first, -sizes[index])):
        count, rank = load[0]
        heapq.heapreplace(load, (count + sizes[index], rank))
        ranks[rank].append(index)
    return ranks


def shard_elements(shape: list[int], world_size: int, rank: int = 0) -> int:
    """Elements of a parameter that a rank holds: ``fully_shard`` cuts dimension 0 into chunks of ceil(d0/N) rows.

    Rank 0 always holds a full chunk, and the other ranks hold as much or less.
    """
    if not shape:
        return 1
    rows = ceil(shape[0] / world_size)
    return min(rows, max(0, shape[0] - rank * rows)) * prod(shape[1:])


def ranks_of(setting: Setting) -> range:
    """The ranks among which the one with most state is: with quantized moments, a smaller shard may keep more."""
    return range(setting.shards) if setting.rank is None else range(setting.rank, setting.rank + 1)


def _replicated(setting: Setting) -> dict[str, int]:
    """Stages 0 and 1: parameters and gradients whole; at stage 1 optimizer and master weights by parameter."""
    widths = setting.widths
    pairs = [
        (optimizer, element_count(parameter.shape))
        for optimizer, chosen in setting.by_optimizer(setting.trainable)
        for parameter in chosen
    ]
    sizes = [size for _, size in pairs]
    matrices = sum(optimizer is setting.matrix_optimizer for optimizer, _ in pairs)
    owned = zero_partition(sizes, setting.world_size, matrices) if setting.stage == 1 else [list(range(len(sizes)))]

    def kept(rank: list[int]) -> int:
        return sum(optimizer.bytes_of(size, widths.moment) for optimizer, size in (pairs[index] for index in rank))

    def elements_of(rank: list[int]) -> int:
        return sum(sizes[index] for index in rank)

    largest = max(
        owned if setting.stage == 0 or setting.rank is None else [owned[setting.rank]],
        key=lambda rank: kept(rank) + elements_of(rank) * widths.master,
    )
    return {
        "params": elements(setting.parameters) * widths.param,
        "master": elements_of(largest) * widths.master,
        "grads": sum(sizes) * widths.grad,
        "optimizer": kept(largest),
        "buffers": setting.buffer_bytes,
    }


def _sharded(setting: Setting) -> dict[str, int]:
    """Stages 2 and 3, the same at this moment: everything sharded; whole parameters live from forward to backward.

    With bf16_master the sharded weights are fp32 (kind ``master``) and so are their gradients; the bf16 weights
    exist only while a unit is gathered.
    """
    widths, optimizer = setting.widths, setting.optimizer
    kept = sum(shard_elements(parameter.shape, setting.shards) for parameter in setting.parameters)
    trained = sum(shard_elements(parameter.shape, setting.shards) for parameter in setting.trainable)
    own_width = widths.master or widths.param
    ranks = ranks_of(setting) if optimizer.has_8_bits else range(1)
    moments = max(
        sum(optimizer.bytes_of(size, widths.moment) for size in sizes)
        for sizes in ([shard_elements(one.shape, setting.shards, rank) for one in setting.trainable] for rank in ranks)
    )
    return {
        "params": 0 if widths.master else kept * own_width,
        "master": kept * widths.master,
        "grads": trained * own_width,
        "optimizer": moments,
        "buffers": setting.buffer_bytes,
    }


def transient(setting: Setting) -> int:
    """Most bytes in addition to state and activations, the optimizer's own temporaries left out.

    Autocast's 2-byte copies of the weights at any stage. Stages 0 and 1: see ``_replicated_transient``. Stage 2: all
    parameters, plus the largest unit's gradients whole and their reduction buffer. Stage 3: the current and the
    prefetched unit's parameters, the root's, and the same gradients. With accumulation, all gradients stay whole until
    the last micro-batch.
    """
    cast = 2 * elements(setting.parameters) if setting.precision.startswith("amp_") else 0
    if setting.stage <= 1:
        return cast + _replicated_transient(setting)
    units: dict[int, list[Parameter]] = {}
    for parameter in setting.parameters:
        units.setdefault(parameter.unit, []).append(parameter)
    padded = {
        unit: sum(shard_elements(parameter.shape, setting.shards) * setting.shards for parameter in members)
        for unit, members in units.items()
    }
    largest, whole = max(padded.values(), default=0), sum(padded.values())
    gathered = whole if setting.stage == 2 else min(whole, 2 * largest + padded.get(-1, 0))
    unreduced = whole if setting.accumulate > 1 else largest
    return gathered * setting.widths.param + unreduced * setting.widths.grad + largest * _reduce_bytes(setting) + cast


def _replicated_transient(setting: Setting) -> int:
    """Buckets of DDP that gradients are no views of, and the largest of what is there one after another: gradients
    that wait outside of the buckets for the last micro-batch, copies that are compressed, weights being averaged."""
    trained, widths = elements(setting.trainable), setting.widths
    views = setting.options.get("gradient_as_bucket_view", True)
    waiting = trained * widths.grad if views and setting.accumulate > 1 else 0
    compressed = 0 if setting.compression == "none" else trained * _reduce_bytes(setting)
    averaged = trained * widths.param if setting.local_steps > 1 else 0
    return (0 if views else trained * widths.grad) + max(waiting, compressed, averaged)


def sent(setting: Setting) -> float:
    """Bytes sent per rank and step (mean over ranks) with bandwidth-optimal collectives; f = (N-1)/N.

    Stage 0: all-reduce of gradients, 2f·P·b_g; with k local steps an all-reduce of parameters in their place, every
    k-th step. Stage 1: gradients the same and a broadcast of each parameter from its owner, f·P·b_p. Stages 2 and 3:
    reduce-scatter f·P·b_g and all-gather f·P·b_p in each micro-batch's forward, at stage 3 again in its backward (the
    root too: ``reshard_after_forward`` is set, not left to fully_shard); with hybrid sharding f is that of the ranks
    that share a copy, and the copies all-reduce their shards of gradients. Padding and the collectives of buffers,
    clipping and the loss are left out.
    """
    gradients = elements(setting.trainable)
    if setting.local_steps > 1:
        return setting.fraction * 2 * gradients * setting.widths.param / setting.local_steps
    if setting.stage <= 1:
        updated = gradients * setting.widths.param if setting.stage == 1 else 0
        return setting.fraction * (2 * gradients * _reduce_bytes(setting) + updated)
    once = elements(setting.parameters)
    gathers = once if setting.stage == 2 else 2 * once
    replicas = setting.world_size / setting.shards
    within = (setting.shards - 1) / setting.shards
    between = 2 * (replicas - 1) / replicas * gradients / setting.shards
    reduced = (within * gradients + between) * _reduce_bytes(setting)
    return within * gathers * setting.widths.param * setting.accumulate + reduced


def _reduce_bytes(setting: Setting) -> int:
    """Bytes of a communicated gradient element: of the engine's ``reduce_dtype``, else the gradient's own."""
    name = str(setting.described.get("reduce_dtype") or "").removeprefix("torch.")
    return DTYPE_BYTES.get(name, setting.widths.grad)


THEORY = Theory(
    state=state,
    transient=transient,
    sent=sent,
    host=host,
    copied=copied,
    gradients_kept=(0, 1),
    exact_peak=(0, 1),
    handover=(2, 3),
    host_gradients_kept=False,
)
"""Kept gradients are views of DDP's buckets; fully_shard keeps the gradients of a whole unit."""
