"""Marks in time on a rank: wall clock on a CPU, events on a GPU's stream.

A mark never waits. On a GPU it is an event recorded on the current stream, read once, after one
synchronization behind the last step, so that timing does not serialize what it times.
"""

from __future__ import annotations

import time
from typing import Protocol

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store


class Marker(Protocol):
    """Takes note of where one part of a step ends and the next begins."""

    def mark(self) -> None:
        """Adds a mark here."""
        ...


class Marks(Marker, Protocol):
    """A sequence of marks in time."""

    def intervals_s(self) -> list[float]:
        """Seconds between consecutive marks; waits for the device."""
        ...


class CpuMarks:
    """Marks of the monotonic wall clock."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def mark(self) -> None:
        self._times.append(time.perf_counter())

    def intervals_s(self) -> list[float]:
        return [after - before for before, after in zip(self._times, self._times[1:], strict=False)]


class CudaMarks:
    """Events on the current stream; they are read after one synchronization."""

    def __init__(self) -> None:
        self._events: list[torch.cuda.Event] = []

    def mark(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    def intervals_s(self) -> list[float]:
        torch.cuda.synchronize()
        pairs = zip(self._events, self._events[1:], strict=False)
        return [before.elapsed_time(after) / 1000 for before, after in pairs]


def synchronize(device: torch.device) -> None:
    """Returns once the device has done what was enqueued on it; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def wait_for_all(device: torch.device) -> None:
    """Returns once all ranks are here. Over NCCL a barrier may be no more than enqueued."""
    dist.barrier()
    synchronize(device)


def all_here(store: Store, ranks: int, where: str) -> None:
    """Returns once all ``ranks`` have called it with ``where``; by no collective, so that no device waits."""
    if store.add(f"{where}/here", 1) == ranks:
        store.set(f"{where}/all here", "")
    store.wait([f"{where}/all here"])


def marks(device: torch.device) -> Marks:
    return CudaMarks() if device.type == "cuda" else CpuMarks()
