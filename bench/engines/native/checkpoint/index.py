"""``index.json``: the contents of a checkpoint, and checks that they are complete and fit the engine."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.engines.native.checkpoint.local_state import LocalParameter, parameters_of, persistent_buffers

if TYPE_CHECKING:
    from bench.engines.native.adapter import NativeEngine

VERSION = 2
INDEX = "index.json"


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read; one line that names the file or the parameter."""


@dataclass(frozen=True)
class ShardFile:
    """One rank's file."""

    bytes: int
    sha256: str
    pieces: dict[str, list[int]]
    """By parameter: its first element in the file, and the one after its last."""


@dataclass(frozen=True)
class Index:
    """The contents of ``index.json``."""

    version: int
    world_size: int
    stage: int
    precision: str
    optimizer: str
    state: list[str]
    """Names of the optimizer's tensors; none before the first step."""
    scalars: dict[str, float]
    """The optimizer's scalars, which are the same for all parameters: the step."""
    loss_scale: dict[str, float] | None
    parameters: dict[str, LocalParameter]
    buffers: dict[str, list[int]]
    files: dict[str, ShardFile]


def shard_name(rank: int, world_size: int) -> str:
    return f"rank-{rank:05d}-of-{world_size:05d}.pt"


def aside(folder: Path) -> Path:
    """The earlier checkpoint's folder between two renames, if the file system cannot exchange two folders."""
    return folder.with_name(f".{folder.name}.earlier")


def digest_of_document(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def read_index(folder: Path) -> Index:
    try:
        document = json.loads((folder / INDEX).read_bytes())
        stated = document.pop("sha256")
        if document["version"] != VERSION:
            raise CheckpointError(f"{INDEX} has format version {document['version']}, expected {VERSION}")
        if stated != digest_of_document(document):
            raise CheckpointError(f"{INDEX} is damaged: its contents do not have the SHA-256 that it states")
        parameters = {name: LocalParameter(**entry) for name, entry in document.pop("parameters").items()}
        files = {name: ShardFile(**entry) for name, entry in document.pop("files").items()}
        index = Index(parameters=parameters, files=files, **document)
    except FileNotFoundError as error:
        earlier = aside(folder.resolve())
        hint = f"; a save was cut off, and {earlier} is the one before it" if earlier.exists() else ""
        raise CheckpointError(f"{folder / INDEX} is missing, expected a checkpoint{hint}") from error
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{INDEX} is not an index of format version {VERSION}: {error!r}") from error
    for rank, name in enumerate(index.files):
        if name != shard_name(rank, index.world_size):
            raise CheckpointError(f"{INDEX} names the file {name!r}, expected {shard_name(rank, index.world_size)}")
    if len(index.files) != index.world_size:
        raise CheckpointError(f"{INDEX} names {len(index.files)} files, expected {index.world_size}")
    return index


def check_fit(engine: NativeEngine, index: Index) -> None:
    """Raises CheckpointError for a checkpoint of another module or optimizer."""
    if index.optimizer != engine.spec.optimizer:
        raise CheckpointError(f"{INDEX} is of optimizer {index.optimizer}, expected {engine.spec.optimizer}")
    expected, buffers = parameters_of(engine), persistent_buffers(engine)
    check_names("parameter", set(index.parameters), set(expected))
    check_names("buffer", set(index.buffers), set(buffers))
    for name, saved in index.parameters.items():
        if saved.shape != expected[name].shape:
            raise CheckpointError(f"parameter {name} has shape {saved.shape}, expected {expected[name].shape}")
        if saved.trained != expected[name].trained:
            was, now = ("trained" if trained else "frozen" for trained in (saved.trained, expected[name].trained))
            raise CheckpointError(f"parameter {name} is {was}, expected {now}")
    for name, shape in index.buffers.items():
        if shape != list(buffers[name].shape):
            raise CheckpointError(f"buffer {name} has shape {shape}, expected {list(buffers[name].shape)}")


def check_names(kind: str, saved: set[str], expected: set[str]) -> None:
    for name in sorted(expected - saved):
        raise CheckpointError(f"{kind} {name} is missing from the checkpoint")
    for name in sorted(saved - expected):
        raise CheckpointError(f"{kind} {name} is in the checkpoint, expected only those of the module")


def check_coverage(index: Index) -> None:
    """Raises CheckpointError unless every element of every parameter is in exactly one file."""
    for name, parameter in index.parameters.items():
        reached, total = 0, math.prod(parameter.shape)
        for start, stop, file in [*pieces_of(index, name), (total, total, INDEX)]:
            if start != reached:
                raise CheckpointError(f"{file} continues with parameter {name} at element {start}, expected {reached}")
            reached = stop


def pieces_of(index: Index, parameter: str) -> list[tuple[int, int, str]]:
    """The pieces of a parameter, in order: first element, the one after the last, and file."""
    return sorted(
        (file.pieces[parameter][0], file.pieces[parameter][1], name)
        for name, file in index.files.items()
        if parameter in file.pieces
    )
