"""The Workload protocol: a model, its data and its loss, the same on every rank and at every world size.

A workload is built once in each rank's process (or inherited from the fork server) and must be a pure
function of its arguments: same weights, same samples, whatever the rank and the world size. It knows
nothing of ranks, engines or clocks.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

Batch = Any
"""Inputs and targets: tensors, in tuples, lists or dicts, nested as ``loss`` likes. The workloads here have tuples.
Dimension 0 of each tensor indexes the samples."""


class WorkloadError(ValueError):
    """A factory, an option or a data folder is not valid; the message is one line that names it and what is valid."""


@contextmanager
def rejections(settings: str, valid: str, *, with_line: bool = False) -> Iterator[None]:
    """Turns an error that a model raises while it is built into a WorkloadError about the ``settings`` that it has.

    ``valid`` says what to do; ``with_line`` adds where the error was raised. Errors of files stay what they are.
    """
    try:
        yield
    except (WorkloadError, OSError, MemoryError):
        raise
    except Exception as error:  # each model checks its arguments in its own way
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f" ({Path(place.filename).name}, line {place.lineno})" if with_line else ""
        raise WorkloadError(f"{settings} cannot be built: {first_line(error)}{where}; {valid}") from error


@dataclass(frozen=True)
class DataInfo:
    """The source of the samples."""

    description: str
    synthetic: bool
    samples: int
    """Distinct samples; global indices wrap around at this number."""
    in_memory: bool = False
    """Whether they are there before the first step, so that nothing is read or decoded for a batch."""


@dataclass(frozen=True)
class WorkloadInfo:
    """Units and data of a workload."""

    name: str
    unit: str
    """What throughput counts: ``sample``, ``token`` or ``frame``."""
    units_per_sample: int
    data: DataInfo


class Workload(Protocol):
    """One model, its data and its loss. Constructed as ``factory(seed=..., data_dir=..., **options)``."""

    info: WorkloadInfo

    def build(self) -> nn.Module:
        """A new model on the CPU in fp32, in training mode, with the same weights each time."""
        ...

    def units(self, module: nn.Module) -> list[nn.Module]:
        """The sharding units of a built ``module``, in the order that forward visits them; they must not nest.

        Parameters of no unit belong to the root. Stage 3 gathers one unit at a time.
        """
        ...

    def batch(self, indices: Sequence[int]) -> Batch:
        """The samples with these global indices (any non-negative integers), on the CPU."""
        ...

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The mean loss over ``batch``, a scalar; calls ``module`` exactly as training would."""
        ...


def seeded(seed: int) -> torch.Generator:
    """A CPU generator; the only source of randomness that a workload may use."""
    return torch.Generator().manual_seed(seed)


@contextmanager
def reseeded(seed: int) -> Iterator[None]:
    """Seeds torch's default CPU generator inside and restores it after: for modules that draw their own weights.

    ``torch.manual_seed`` would also seed the accelerators, which a fork server must not touch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def kept_generators(device: torch.device) -> Iterator[None]:
    """All random generators are as before at the end: torch's on the CPU and on ``device``, Python's and numpy's."""
    python, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)


def first_line(error: BaseException) -> str:
    """What an error says, in a line; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def check_count(workload: str, option: str, value: object) -> None:
    """Rejects an option's value that is not a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise WorkloadError(f"{workload}: {option}={value!r} is not valid; valid: a whole number of at least 1")


def check_mapping(workload: str, option: str, value: object) -> None:
    """Rejects an option's value that is neither a mapping nor null."""
    if not isinstance(value, dict | None):
        raise WorkloadError(f"{workload}: {option}={value!r} is not valid; valid: {{NAME: VALUE, ...}}, null")


def check_choice(workload: str, option: str, value: object, choices: Sequence[object]) -> None:
    """Rejects an option's value that is none of ``choices``."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise WorkloadError(f"{workload}: {option}={value!r} is not valid; valid: {', '.join(map(str, choices))}")
