"""Memory of one rank, counted at the allocator: model state by kind, and the peak of a step.

On a GPU the caching allocator keeps the figures. A CPU has no such counter, but the profiler reports each
allocation and each release; their running sum is what is allocated. It starts at zero with the profiler,
which therefore has to be started before the model is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

WINDOW = "bench.memory.step"


class StepMemory(Protocol):
    """Counts what is allocated at the begin of steps and at their peaks."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def step(self) -> Any:
        """Context of a step to be counted."""
        ...

    def rest_bytes(self) -> int:
        """Allocated when the last step began; valid, as all figures, after the outer context."""
        ...

    def peaks_bytes(self) -> list[int]:
        """The peak of each step."""
        ...

    def reserved_bytes(self) -> int | None:
        """Most that the caching allocator held; None where there is none."""
        ...


class CpuStepMemory:
    """The running sum of the profiler's allocation events; its context begins before the model is built."""

    def __init__(self) -> None:
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True)
        self._rest, self._peaks = 0, list[int]()

    def __enter__(self) -> Self:
        self._profile.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._profile.__exit__(kind, error, at)
        if kind is None:
            self._rest, self._peaks = peaks_in_windows(allocation_events(self._profile))

    @contextmanager
    def step(self) -> Iterator[None]:
        with record_function(WINDOW):
            yield

    def rest_bytes(self) -> int:
        return self._rest

    def peaks_bytes(self) -> list[int]:
        return self._peaks

    def reserved_bytes(self) -> int | None:
        return None


class CudaStepMemory:
    """The caching allocator's own statistics."""

    def __init__(self) -> None:
        self._rest = self._reserved = 0
        self._peaks: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    @contextmanager
    def step(self) -> Iterator[None]:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._rest = torch.cuda.memory_allocated()
        yield
        torch.cuda.synchronize()
        self._peaks.append(torch.cuda.max_memory_allocated())
        self._reserved = max(self._reserved, torch.cuda.max_memory_reserved())

    def rest_bytes(self) -> int:
        return self._rest

    def peaks_bytes(self) -> list[int]:
        return self._peaks

    def reserved_bytes(self) -> int | None:
        return self._reserved


def step_memory(device: torch.device) -> StepMemory:
    return CudaStepMemory() if device.type == "cuda" else CpuStepMemory()


Event = tuple[int, str, int]
"""Time in ns, what happened (``allocate``, ``begin`` or ``end`` of the window), bytes (negative: released)."""


def allocation_events(profiled: profile) -> list[Event]:
    """Every CPU allocation of a finished profile, and the window's begin and end. Reads torch's kineto results."""
    events: list[Event] = []
    assert profiled.profiler is not None
    for event in profiled.profiler.kineto_results.events():  # type: ignore[union-attr]
        name = event.name()
        if name == "[memory]" and event.device_type() == torch.profiler.DeviceType.CPU:
            events.append((event.start_ns(), "allocate", event.nbytes()))  # type: ignore[union-attr]
        elif name == WINDOW:
            events.append((event.start_ns(), "begin", 0))
            events.append((event.end_ns(), "end", 0))
    return sorted(events, key=lambda event: event[0])


def peaks_in_windows(events: list[Event]) -> tuple[int, list[int]]:
    """Bytes allocated when the last window began, and the most while each was open."""
    allocated = rest = 0
    peaks: list[int] = []
    inside = False
    for _, what, size in events:
        allocated += size
        if what == "begin":
            inside, rest = True, allocated
            peaks.append(allocated)
        elif what == "end":
            inside = False
        elif inside:
            peaks[-1] = max(peaks[-1], allocated)
    return rest, peaks


def state_bytes(state: dict[str, list[Tensor]]) -> dict[str, int]:
    """Bytes of each kind of state; storage that several tensors share is counted once, under the first kind."""
    seen: set[int] = set()
    sizes = {}
    for kind, tensors in state.items():
        total = 0
        for tensor in tensors:
            storage = local(tensor).untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                total += storage.nbytes()
        sizes[kind] = total
    return sizes


def local(tensor: Tensor) -> Tensor:
    """The part of a DTensor that this rank holds; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
