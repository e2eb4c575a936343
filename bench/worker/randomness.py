"""Random numbers of training: every rank begins with the same generators, and one process plays them all.

Ranks are seeded alike, so all of them draw the same masks for the n-th micro-batch of their share. A single process
trains on the shares one after another. It keeps a set of generator states per share, and restores it before each.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy
import torch
from torch import nn

from bench.job import WorkloadJob

State = list[Any]
"""The states of all generators, in the order of ``Generators``."""


def seed_generators(job: WorkloadJob[Any]) -> None:
    """Seeds torch (all devices), Python and NumPy as every rank is seeded."""
    torch.manual_seed(job.workload.seed)
    random.seed(job.workload.seed)
    numpy.random.seed(job.workload.seed)


class Generators:
    """All generators that training can draw from: the global ones, and those that ``owners`` keep as attributes."""

    def __init__(self, device: torch.device, owners: Iterable[object] = ()) -> None:
        self._reads: list[Callable[[], Any]] = [torch.get_rng_state, random.getstate, numpy.random.get_state]
        self._writes: list[Callable[[Any], Any]] = [torch.set_rng_state, random.setstate, numpy.random.set_state]
        if device.type == "cuda":
            self._reads.append(lambda: torch.cuda.get_rng_state(device))
            self._writes.append(lambda state: torch.cuda.set_rng_state(state, device))
        for owner in owners:
            for value in getattr(owner, "__dict__", {}).values():
                self._add(value)

    def _add(self, value: object) -> None:
        if isinstance(value, torch.Generator):
            self._reads.append(value.get_state)
            self._writes.append(value.set_state)
        elif isinstance(value, random.Random | numpy.random.RandomState):
            read = value.getstate if isinstance(value, random.Random) else value.get_state
            write = value.setstate if isinstance(value, random.Random) else value.set_state
            self._reads.append(read)
            self._writes.append(write)
        elif isinstance(value, numpy.random.Generator):
            bits = value.bit_generator
            self._reads.append(lambda: bits.state)
            self._writes.append(lambda state: setattr(bits, "state", state))

    def states(self) -> State:
        return [read() for read in self._reads]

    def restore(self, states: State) -> None:
        for write, state in zip(self._writes, states, strict=True):
            write(state)


def owners_of(work: object, module: nn.Module) -> list[object]:
    """What may keep a generator of its own: the workload, and every part of the module."""
    return [work, *module.modules()]


def differ(first: State, second: State) -> bool:
    """Whether any generator has been drawn from in between."""
    return repr(list(map(_comparable, first))) != repr(list(map(_comparable, second)))


def _comparable(state: Any) -> Any:
    """A state whose ``repr`` is whole."""
    if isinstance(state, torch.Tensor):
        return state.cpu().numpy().tobytes()
    if isinstance(state, tuple):
        return [part.tobytes() if isinstance(part, numpy.ndarray) else part for part in state]
    return {key: _comparable(value) for key, value in state.items()} if isinstance(state, dict) else state
