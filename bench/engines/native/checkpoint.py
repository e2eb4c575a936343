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
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bench.engines.native.bucket import Bucket

if TYPE_CHECKING:
    from bench.engines.native.adapter import NativeEngine

VERSION = 1
INDEX = "index.json"
WEIGHT = "weight"
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
T = TypeVar("T")


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read; one line that names the file or the parameter."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of the module."""

    shape: list[int]
    dtype: str
    trained: bool


@dataclass(frozen=True)
class ShardFile:
    """One rank's file."""

    bytes: int
    sha256: str
    pieces: dict[str, list[int]]
    """Of each parameter in it: the first element, and the one after the last."""


@dataclass(frozen=True)
class Index:
    """What ``index.json`` says."""

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
    parameters: dict[str, Parameter]
    buffers: dict[str, list[int]]
    files: dict[str, ShardFile]


@dataclass(frozen=True)
class Part:
    """Elements of a flattened parameter from ``start`` on, in views of the tensors in which this rank keeps them."""

    name: str
    start: int
    tensors: dict[str, Tensor]

    @property
    def stop(self) -> int:
        return self.start + self.tensors[WEIGHT].numel()


@torch.no_grad()
def save(engine: NativeEngine, folder: Path) -> None:
    """Collective, between steps. Replaces a checkpoint that is already at ``folder``."""
    refuse_within_step(engine)
    folder = folder.resolve()
    unfinished = folder.with_name(f".{folder.name}.saving")
    leads = engine.context.rank == 0
    try:
        everywhere(lambda: clear_the_way(folder, unfinished) if leads else None)
        files = everywhere(lambda: write_shard(engine, unfinished))
        everywhere(lambda: complete(engine, files, unfinished, folder) if leads else None)
    finally:
        if leads:
            shutil.rmtree(unfinished, ignore_errors=True)


@torch.no_grad()
def load(engine: NativeEngine, folder: Path) -> None:
    """Collective, between steps. A checkpoint that is refused changes nothing."""
    refuse_within_step(engine)
    index = everywhere(lambda: checked(engine, folder))[engine.context.rank]
    everywhere(lambda: restore(engine, index, folder))
    bring_up_to_date(engine)


def refuse_within_step(engine: NativeEngine) -> None:
    if any(entry.result is not None or entry.written for entry in engine.reducer.gradients):
        raise CheckpointError("gradients wait for optimizer_step: a checkpoint is saved and loaded between steps")


def everywhere(work: Callable[[], T]) -> list[T]:
    """Does ``work`` on every rank and returns all results; what failed on any rank is raised on all."""
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
    outcomes: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(outcomes, (result, failure))
    for _, failed in outcomes:
        if failed is not None:
            raise CheckpointError(failed) from cause
    return [result for result, _ in outcomes]


# What a rank keeps


def parameters_of(engine: NativeEngine) -> dict[str, Parameter]:
    """All parameters, in the dtypes in which they are saved."""
    kept = {name: (parameter.shape, parameter.dtype) for name, parameter in engine.names.items()}
    for bucket in engine.buckets:
        for name, view in zip(names_in(engine, bucket), bucket.views, strict=True):
            kept[name] = (view.shape, bucket.shard.dtype)
    return {
        name: Parameter(list(shape), str(dtype).removeprefix("torch."), engine.names[name].requires_grad)
        for name, (shape, dtype) in kept.items()
    }


def names_in(engine: NativeEngine, bucket: Bucket) -> list[str]:
    names = {id(parameter): name for name, parameter in engine.names.items()}
    return [names[id(parameter)] for parameter in bucket.parameters]


def kept_parts(engine: NativeEngine, *, own: bool) -> Iterator[Part]:
    """What this rank keeps of each parameter in a bucket, or just what it owns of it."""
    for bucket in engine.buckets:
        tensors = {WEIGHT: bucket.shard, **state_tensors(engine, bucket)}
        kept = bucket.own if bucket.shard.numel() < bucket.layout.size else slice(0, bucket.layout.size)
        wanted = bucket.own if own else kept
        for name, slot in zip(names_in(engine, bucket), bucket.layout.slots, strict=True):
            start, stop = max(slot.offset, wanted.start), min(slot.offset + slot.count, wanted.stop)
            if start < stop:
                place = slice(start - kept.start, stop - kept.start)
                yield Part(name, start - slot.offset, {key: tensor[place] for key, tensor in tensors.items()})


def loose_parts(engine: NativeEngine, *, own: bool) -> Iterator[Part]:
    """The same of parameters in no bucket: frozen ones that every rank has whole (stages 0 to 2)."""
    bucketed = {name for bucket in engine.buckets for name in names_in(engine, bucket)}
    rank, ranks = (engine.context.rank, engine.context.world_size) if own else (0, 1)
    for name, parameter in engine.names.items():
        start, stop = parameter.numel() * rank // ranks, parameter.numel() * (rank + 1) // ranks
        if name not in bucketed and start < stop:
            yield Part(name, start, {WEIGHT: parameter.detach().reshape(-1)[start:stop]})


def optimizer_state(engine: NativeEngine, bucket: Bucket) -> dict[str, Tensor]:
    """The entries of torch's optimizer for the bucket's shard."""
    for entry, shard, optimizer in zip(
        engine.optimizer.gradients, engine.optimizer.shards, engine.optimizer.optimizers, strict=True
    ):
        if entry.bucket is bucket:
            return {key: value for key, value in optimizer.state.get(shard, {}).items() if isinstance(value, Tensor)}
    return {}


def state_tensors(engine: NativeEngine, bucket: Bucket) -> dict[str, Tensor]:
    """Those that have an element per element of the shard."""
    return {key: value for key, value in optimizer_state(engine, bucket).items() if value.dim() > 0}


def persistent_buffers(engine: NativeEngine) -> dict[str, Tensor]:
    transient = {
        f"{path}.{name}" if path else name
        for path, module in engine.module.named_modules()
        for name in module._non_persistent_buffers_set
    }
    return {name: buffer for name, buffer in engine.module.named_buffers() if name not in transient}


def random_generators(engine: NativeEngine) -> dict[str, Tensor]:
    cuda = engine.context.device.type == "cuda"
    return {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state(engine.context.device)} if cuda else {})


# Saving


def clear_the_way(folder: Path, unfinished: Path) -> None:
    """Makes an empty folder to write into; refuses a destination that is not a checkpoint."""
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file, expected a checkpoint or nothing")
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name != INDEX and not re.fullmatch(r"rank-\d+-of-\d+\.pt", path.name):
            raise CheckpointError(f"{path} is not part of a checkpoint: {folder} is not replaced")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)


def shard_name(rank: int, world_size: int) -> str:
    return f"rank-{rank:05d}-of-{world_size:05d}.pt"


def write_shard(engine: NativeEngine, folder: Path) -> ShardFile:
    """Writes what this rank owns."""
    parts = [*kept_parts(engine, own=True), *loose_parts(engine, own=True)]
    shard = {
        "pieces": {part.name: {key: detached(tensor) for key, tensor in part.tensors.items()} for part in parts},
        "buffers": {name: detached(buffer) for name, buffer in persistent_buffers(engine).items()},
        "random": random_generators(engine),
    }
    path = folder / shard_name(engine.context.rank, engine.context.world_size)
    try:
        torch.save(shard, path)
        sync(path)
    except (OSError, RuntimeError) as error:
        first_line = str(error).partition("\n")[0]
        raise CheckpointError(f"{path.name} could not be written: {first_line}") from error
    return ShardFile(path.stat().st_size, digest(path), {part.name: [part.start, part.stop] for part in parts})


def detached(tensor: Tensor) -> Tensor:
    """A copy with a storage of its own: torch.save writes the whole storage that a view is in."""
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
    """Renames ``unfinished`` to ``folder``. What was there is left as ``unfinished`` or ``aside(folder)``."""
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


def aside(folder: Path) -> Path:
    """Where the earlier checkpoint is between two renames, if the file system cannot exchange two folders."""
    return folder.with_name(f".{folder.name}.earlier")


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


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_document(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


# Checking


def checked(engine: NativeEngine, folder: Path) -> Index:
    """The index, if it fits the engine; this rank's share of the files has been read and found sound."""
    index = read_index(folder)
    check_fit(engine, index)
    check_coverage(index)
    for name in list(index.files)[engine.context.rank :: engine.context.world_size]:
        check_shard(folder / name, index)
    return index


def read_index(folder: Path) -> Index:
    try:
        document = json.loads((folder / INDEX).read_bytes())
        stated = document.pop("sha256")
        if document["version"] != VERSION:
            raise CheckpointError(f"{INDEX} has format version {document['version']}, expected {VERSION}")
        if stated != digest_of_document(document):
            raise CheckpointError(f"{INDEX} is damaged: its contents do not have the SHA-256 that it states")
        parameters = {name: Parameter(**entry) for name, entry in document.pop("parameters").items()}
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
    """Refuses a checkpoint of another module or optimizer."""
    if index.optimizer != engine.spec.optimizer:
        raise CheckpointError(f"{INDEX} is of optimizer {index.optimizer}, expected {engine.spec.optimizer}")
    expected, buffers = parameters_of(engine), persistent_buffers(engine)
    refuse_other_names("parameter", set(index.parameters), set(expected))
    refuse_other_names("buffer", set(index.buffers), set(buffers))
    for name, found in index.parameters.items():
        if found.shape != expected[name].shape:
            raise CheckpointError(f"parameter {name} has shape {found.shape}, expected {expected[name].shape}")
        if found.trained != expected[name].trained:
            was, now = ("trained" if trained else "frozen" for trained in (found.trained, expected[name].trained))
            raise CheckpointError(f"parameter {name} is {was}, expected {now}")
    for name, shape in index.buffers.items():
        if shape != list(buffers[name].shape):
            raise CheckpointError(f"buffer {name} has shape {shape}, expected {list(buffers[name].shape)}")


def refuse_other_names(kind: str, found: set[str], expected: set[str]) -> None:
    for name in sorted(expected - found):
        raise CheckpointError(f"{kind} {name} is missing from the checkpoint")
    for name in sorted(found - expected):
        raise CheckpointError(f"{kind} {name} is in the checkpoint, expected only those of the module")


def check_coverage(index: Index) -> None:
    """Every element of every parameter is in exactly one file."""
    for name, parameter in index.parameters.items():
        reached, total = 0, math.prod(parameter.shape)
        for start, stop, file in [*pieces_of(index, name), (total, total, INDEX)]:
            if start != reached:
                raise CheckpointError(f"{file} goes on with parameter {name} at element {start}, expected {reached}")
            reached = stop


def pieces_of(index: Index, parameter: str) -> list[tuple[int, int, str]]:
    """Where a parameter's elements are: first one, the one after the last, and file, in order."""
    return sorted(
        (file.pieces[parameter][0], file.pieces[parameter][1], name)
        for name, file in index.files.items()
        if parameter in file.pieces
    )


def check_shard(path: Path, index: Index) -> None:
    """Refuses a file that is not the one that was written, or not what the index says it is."""
    expected = index.files[path.name]
    if not path.is_file():
        raise CheckpointError(f"{path.name} is missing from {path.parent}")
    if (size := path.stat().st_size) != expected.bytes:
        raise CheckpointError(f"{path.name} has {size} bytes, expected {expected.bytes}")
    if (found := digest(path)) != expected.sha256:
        raise CheckpointError(f"{path.name} is damaged: its SHA-256 is {found}, expected {expected.sha256}")
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


# Loading


def restore(engine: NativeEngine, index: Index, folder: Path) -> None:
    """Fills what this rank keeps."""
    if engine.spec.stage == 3:
        for group in engine.groups:
            group.free()
    create_optimizer_state(engine, index)
    opened: dict[str, dict[str, dict[str, Any]]] = {}

    def shard(name: str) -> dict[str, dict[str, Any]]:
        if name not in opened:
            opened[name] = open_shard(folder / name)
        return opened[name]

    for part in kept_parts(engine, own=False):
        fill(part, index, shard)
    for part in loose_parts(engine, own=False):
        fill(part, index, shard)
        parameter = engine.names[part.name]
        parameter.copy_(part.tensors[WEIGHT].view(parameter.shape))  # the part is a copy if it is not contiguous
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
    """State as torch's optimizers make it at their first step, all zeros; none if none was saved."""
    for shard, optimizer in zip(engine.optimizer.shards, engine.optimizer.optimizers, strict=True):
        entries = {key: torch.tensor(value, dtype=torch.float32) for key, value in index.scalars.items()}
        entries |= {key: torch.zeros_like(shard) for key in index.state}
        optimizer.load_state_dict(optimizer.state_dict() | {"state": {0: entries} if entries else {}})


def fill(part: Part, index: Index, shard: Callable[[str], dict[str, dict[str, Any]]]) -> None:
    """Copies the part's elements from the files that have them, rounding to the part's dtypes."""
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


def bring_up_to_date(engine: NativeEngine) -> None:
    """Parameters from the shards, as after an update; at stage 3 they are gathered when they are used."""
    for bucket in engine.buckets:
        bucket.publish()
    if engine.spec.stage in (1, 2):
        for finish in [engine.collectives.all_gather(bucket.whole) for bucket in engine.buckets]:
            finish()
