"""Saving: each rank's file, then the index, then the move of the folder to its place."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from bench import causes
from bench.engines.native.checkpoint.index import (
    INDEX,
    VERSION,
    CheckpointError,
    Index,
    ShardFile,
    aside,
    digest_of_document,
    shard_name,
)
from bench.engines.native.checkpoint.local_state import (
    bucket_parts,
    optimizer_state,
    parameters_of,
    persistent_buffers,
    random_generators,
    unbucketed_parts,
)
from bench.engines.native.checkpoint.shards import digest
from bench.saved import save

if TYPE_CHECKING:
    from bench.engines.native.adapter import NativeEngine

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def prepare_folder(folder: Path, unfinished: Path) -> None:
    """Makes an empty folder to write into. Raises CheckpointError for a destination that is not a checkpoint."""
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file, expected a checkpoint or nothing")
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name != INDEX and not re.fullmatch(r"rank-\d+-of-\d+\.pt", path.name):
            raise CheckpointError(f"{path} is not part of a checkpoint: {folder} is not replaced")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)


def write_shard(engine: NativeEngine, folder: Path) -> ShardFile:
    """Writes this rank's file: the elements that it owns."""
    parts = [*bucket_parts(engine, own=True), *unbucketed_parts(engine, own=True)]
    shard = {
        "pieces": {part.name: {key: detached(tensor) for key, tensor in part.tensors.items()} for part in parts},
        "buffers": {name: detached(buffer) for name, buffer in persistent_buffers(engine).items()},
        "random": random_generators(engine),
    }
    path = folder / shard_name(engine.context.rank, engine.context.world_size)
    try:
        save(shard, path)
        sync(path)
    except (OSError, RuntimeError) as error:
        cause = causes.system_error(error)
        why = causes.in_words(cause) if cause else str(error).partition("\n")[0]
        raise CheckpointError(f"{path.name} could not be written: {why}") from error
    return ShardFile(path.stat().st_size, digest(path), {part.name: [part.start, part.stop] for part in parts})


def detached(tensor: Tensor) -> Tensor:
    """A copy with its own storage: torch.save writes all of the storage that a view is in."""
    return tensor.detach().to("cpu", copy=True)


def complete(engine: NativeEngine, files: list[ShardFile], unfinished: Path, folder: Path) -> None:
    """Writes the index and puts the folder into place."""
    document = asdict(describe(engine, files))
    document["sha256"] = digest_of_document(document)
    (unfinished / INDEX).write_text(json.dumps(document, indent=1))
    sync(unfinished / INDEX)
    sync(unfinished)
    put_in_place(unfinished, folder)
    sync(folder.parent)
    shutil.rmtree(aside(folder), ignore_errors=True)


def describe(engine: NativeEngine, files: list[ShardFile]) -> Index:
    spec, scale = engine.spec, engine.loss_scale
    state = optimizer_state(engine, next(bucket for bucket in engine.buckets if bucket.trainable))
    return Index(
        version=VERSION,
        world_size=spec.world_size,
        stage=spec.stage,
        precision=spec.precision,
        optimizer=spec.optimizer,
        state=[key for key, value in state.items() if value.dim() > 0],
        scalars={key: float(value) for key, value in state.items() if value.dim() == 0},
        loss_scale={"value": scale.value, "good_steps": scale.good_steps} if scale.enabled else None,
        parameters=parameters_of(engine),
        buffers={name: list(buffer.shape) for name, buffer in persistent_buffers(engine).items()},
        files={shard_name(rank, len(files)): file for rank, file in enumerate(files)},
    )


def put_in_place(unfinished: Path, folder: Path) -> None:
    """Renames ``unfinished`` to ``folder``. The earlier folder is left as ``unfinished`` or ``aside(folder)``."""
    if not folder.exists():
        unfinished.rename(folder)
    elif not exchange(unfinished, folder):
        earlier = aside(folder)
        shutil.rmtree(earlier, ignore_errors=True)
        folder.rename(earlier)
        try:
            unfinished.rename(folder)
        except OSError:
            earlier.rename(folder)
            raise


def exchange(one: Path, other: Path) -> bool:
    """Swaps two folders in one step; False where the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    return renameat2 is not None and not renameat2(
        AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE
    )


def sync(path: Path) -> None:
    """Waits until a file or a folder's list of names is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
