"""One rank's file: opened without running anything in it, and checked against the index."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from bench.engines.native.checkpoint.index import CheckpointError, Index
from bench.engines.native.checkpoint.local_state import WEIGHT


def check_shard(path: Path, index: Index) -> None:
    """Raises CheckpointError for a file that is not the one that was written, or does not agree with the index."""
    expected = index.files[path.name]
    if not path.is_file():
        raise CheckpointError(f"{path.name} is missing from {path.parent}")
    if (size := path.stat().st_size) != expected.bytes:
        raise CheckpointError(f"{path.name} has {size} bytes, expected {expected.bytes}")
    if (actual := digest(path)) != expected.sha256:
        raise CheckpointError(f"{path.name} is damaged: its SHA-256 is {actual}, expected {expected.sha256}")
    shard = open_shard(path)
    sizes = {name: {key: list(entry.shape) for key, entry in piece.items()} for name, piece in shard["pieces"].items()}
    for name, (start, stop) in expected.pieces.items():
        keys = [WEIGHT, *(index.state if index.parameters[name].trained else [])]
        if sizes.get(name) != {key: [stop - start] for key in keys}:
            raise CheckpointError(
                f"{path.name} has {sizes.get(name)} of {name}, expected {stop - start} of each {keys}"
            )
    for name, shape in index.buffers.items():
        if name not in shard["buffers"] or list(shard["buffers"][name].shape) != shape:
            raise CheckpointError(f"{path.name} lacks buffer {name} of shape {shape}")


def open_shard(path: Path) -> dict[str, dict[str, Any]]:
    """A shard file, mapped into memory; runs no code that a file may contain."""
    try:
        shard = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return {part: dict(shard[part]) for part in ("pieces", "buffers", "random")}
    except Exception as error:  # torch.load raises many kinds
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path.name} is not a shard file: {reason}") from error


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
