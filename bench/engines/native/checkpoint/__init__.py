"""Checkpoints: one file a rank plus an index, written atomically, and loaded into any stage and world size.

    index.json             written last: settings, parameters, scalars, and each file's size, SHA-256 and pieces
    rank-00003-of-00008.pt pieces    name of a parameter -> "weight" (with bf16_master, the fp32 one) and optimizer
                                     state, flat: the elements that this rank owns
                           buffers   this rank's persistent buffers
                           random    this rank's random generators

Pieces are named by parameter and element, so that nothing in a file depends on buckets, stage or world size. What
must be there for training to continue bit by bit comes back if stage, world size and precision are those that were
saved. Another precision gets the weights and the optimizer state rounded to its dtypes, another world size gets rank
0's buffers, and its ranks keep the random generators they have. All ranks must see the same file system.

Saving fills a hidden folder beside the destination, syncs it to disk and swaps the two. Loading checks every digest
and every shape before it changes anything. What fails on one rank is raised on all of them.

    kept.py       what a rank keeps, by parameter and element
    index.py      index.json, and whether it is whole and fits
    writing.py    save
    shards.py     one rank's file, opened and checked
    restoring.py  load
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
from bench.engines.native.checkpoint.restoring import bring_up_to_date, checked, restore
from bench.engines.native.checkpoint.writing import clear_the_way, complete, write_shard
from results.decode import decode

if TYPE_CHECKING:
    from bench.engines.native.adapter import NativeEngine

__all__ = ["CheckpointError", "load", "save"]

T = TypeVar("T")


@torch.no_grad()
def save(engine: NativeEngine, folder: Path) -> None:
    """Collective, between steps. Replaces a checkpoint that is already at ``folder``."""
    refuse_within_step(engine)
    folder = folder.resolve()
    unfinished = folder.with_name(f".{folder.name}.saving")
    leads = engine.context.rank == 0
    try:
        everywhere(engine, lambda: clear_the_way(folder, unfinished) if leads else None)
        file = everywhere(engine, lambda: write_shard(engine, unfinished))
        of_ranks = all_gather_json(asdict(file), engine.context.device)
        files = [decode(entry, ShardFile, "file") for entry in of_ranks]
        everywhere(engine, lambda: complete(engine, files, unfinished, folder) if leads else None)
    finally:
        if leads:
            shutil.rmtree(unfinished, ignore_errors=True)


@torch.no_grad()
def load(engine: NativeEngine, folder: Path) -> None:
    """Collective, between steps. A checkpoint that is refused changes nothing."""
    refuse_within_step(engine)
    index = everywhere(engine, lambda: checked(engine, folder))
    everywhere(engine, lambda: restore(engine, index, folder))
    bring_up_to_date(engine)


def refuse_within_step(engine: NativeEngine) -> None:
    if any(entry.reduced_grad is not None or entry.written for entry in engine.reducer.gradients):
        raise CheckpointError("gradients wait for optimizer_step: a checkpoint is saved and loaded between steps")


def everywhere(engine: NativeEngine, work: Callable[[], T]) -> T:
    """Does ``work`` on every rank and returns this rank's result; what failed on any rank is raised on all."""
    result: T | None = None
    failure: str | None = None
    cause: Exception | None = None
    try:
        result = work()
    except CheckpointError as error:
        failure = str(error)
    except Exception as error:  # the other ranks wait for this one, whatever it is
        cause, first_line = error, str(error).partition("\n")[0]
        failure = f"rank {dist.get_rank()}: {type(error).__name__}: {first_line}"
    for failed in all_gather_json(failure, engine.context.device):
        if failed is not None:
            raise CheckpointError(failed) from cause
    return cast(T, result)
