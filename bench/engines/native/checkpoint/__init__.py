"""Checkpoints: one file per rank and an index, written atomically, and loaded into any stage and world size.

    index.json             written last: settings, parameters, scalars, and each file's size, SHA-256 and pieces
    rank-00003-of-00008.pt pieces    name of a parameter -> "weight" (with bf16_master, the fp32 one) and optimizer
                                     state, flat: the elements that this rank owns
                           buffers   this rank's persistent buffers
                           random    this rank's random generators

Pieces are named by parameter and element, so nothing in a file depends on buckets, stage or world size. Training
continues bit by bit if stage, world size and precision are those that were saved. With another precision, weights and
optimizer state are rounded to its dtypes. With another world size, ranks get rank 0's buffers and keep their random
generators. All ranks must see the same file system.

Saving fills a hidden folder next to the destination, syncs it to disk and swaps the two. Loading checks every digest
and every shape before it changes anything. An error on one rank is raised on all of them.

    local_state.py  a rank's part of the state, by parameter and element
    index.py        index.json: format, and checks that it is complete and fits the engine
    saving.py       save
    shards.py       one rank's file, opened and checked
    loading.py      load
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import torch
import torch.distributed as dist

from bench.engines.exchange import all_gather_json
from bench.engines.native.checkpoint.index import CheckpointError, ShardFile
from bench.engines.native.checkpoint.loading import read_checked, refresh_unsharded, restore
from bench.engines.native.checkpoint.saving import complete, prepare_folder, write_shard
from results.decode import decode

if TYPE_CHECKING:
    from bench.engines.native.adapter import NativeEngine

__all__ = ["CheckpointError", "load", "save"]

T = TypeVar("T")


@torch.no_grad()
def save(engine: NativeEngine, folder: Path) -> None:
    """Saves a checkpoint; collective, between steps. Replaces one that is already at ``folder``."""
    check_possible(engine)
    folder = folder.resolve()
    unfinished = folder.with_name(f".{folder.name}.saving")
    is_first = engine.context.rank == 0
    try:
        on_all_ranks(engine, lambda: prepare_folder(folder, unfinished) if is_first else None)
        file = on_all_ranks(engine, lambda: write_shard(engine, unfinished))
        of_ranks = all_gather_json(asdict(file), engine.context.device)
        files = [decode(entry, ShardFile, "file") for entry in of_ranks]
        on_all_ranks(engine, lambda: complete(engine, files, unfinished, folder) if is_first else None)
    finally:
        if is_first:
            shutil.rmtree(unfinished, ignore_errors=True)


@torch.no_grad()
def load(engine: NativeEngine, folder: Path) -> None:
    """Loads a checkpoint; collective, between steps. Raises CheckpointError, and then changes nothing."""
    check_possible(engine)
    index = on_all_ranks(engine, lambda: read_checked(engine, folder))
    on_all_ranks(engine, lambda: restore(engine, index, folder))
    refresh_unsharded(engine)


def check_possible(engine: NativeEngine) -> None:
    if engine.spec.optimizer in ("muon", "adam8bit"):
        raise CheckpointError(
            f"optimizer={engine.spec.optimizer} has no checkpoints: its optimizer state differs from weight to weight; "
            "valid: optimizer=sgd, adam, adamw, rmsprop"
        )
    if any(entry.reduced_grad is not None or entry.written for entry in engine.reducer.gradients):
        raise CheckpointError("gradients wait for optimizer_step; save and load checkpoints between steps")


def on_all_ranks(engine: NativeEngine, work: Callable[[], T]) -> T:
    """Does ``work`` on every rank and returns this rank's result; an error on any rank is raised on all."""
    result: T | None = None
    failure: str | None = None
    cause: Exception | None = None
    try:
        result = work()
    except CheckpointError as error:
        failure = str(error)
    except Exception as error:  # of any kind: the other ranks wait for this one
        cause, first_line = error, str(error).partition("\n")[0]
        failure = f"rank {dist.get_rank()}: {type(error).__name__}: {first_line}"
    for failed in all_gather_json(failure, engine.context.device):
        if failed is not None:
            raise CheckpointError(failed) from cause
    return cast(T, result)
