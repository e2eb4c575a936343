"""CUDA's streams and events without a GPU: which accesses to memory are ordered, and which are a race.

Streams are clocks (Lamport, CACM 1978; as vector clocks in torch's own CUDA sanitizer): an access is ordered after
another if its stream has come to know of it, by an event or on the stream itself. Operators are seen where torch
dispatches them, collectives among them. Memory is identified by storage, by its address: what was freed and is there
again under another name is the same memory, as it is for the caching allocator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.measure.communication.ledger import tensors


class Stream:
    """What it has done, and what it knows of the others."""

    def __init__(self, device: object = None) -> None:
        self.progress: dict[Stream, int] = {self: 0}

    def wait_stream(self, other: Stream) -> None:
        self.learn(other.progress)

    def wait_event(self, event: Event) -> None:
        self.learn(event.progress)

    def learn(self, progress: dict[Stream, int]) -> None:
        for stream, count in progress.items():
            self.progress[stream] = max(self.progress.get(stream, 0), count)


class Event:
    """What a stream knew when it was recorded."""

    def __init__(self) -> None:
        self.progress: dict[Stream, int] = {}

    def record(self) -> None:
        self.progress = dict(torch.cuda.current_stream().progress)  # type: ignore[attr-defined]


Access = tuple[Stream, int, str]


class Races(TorchDispatchMode):
    """Every pair of accesses in its context that no stream orders, in words."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.pairs: list[str] = []
        self._written: dict[int, Access] = {}
        self._read: dict[int, list[Access]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not func.is_view:
            self._launch(func, args, kwargs, result)
        return result

    def _launch(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        stream: Any = torch.cuda.current_stream()
        stream.progress[stream] += 1
        now = (stream, stream.progress[stream], func._schema.name)
        read, written = set(), set(storages(result))
        arguments = func._schema.arguments
        given = dict(zip((argument.name for argument in arguments), args, strict=False)) | kwargs
        for argument in arguments:
            if argument.name in given:
                (written if writes(func, argument) else read).update(storages(given[argument.name]))
        for storage in written:
            for earlier in (*self._read.pop(storage, []), *self._last_write(storage)):
                self._check(earlier, now)
            self._written[storage] = now
        for storage in read - written:
            for earlier in self._last_write(storage):
                self._check(earlier, now)
            self._read.setdefault(storage, []).append(now)

    def _last_write(self, storage: int) -> list[Access]:
        return [self._written[storage]] if storage in self._written else []

    def _check(self, earlier: Access, now: Access) -> None:
        stream, count, what = earlier
        if now[0].progress.get(stream, 0) < count:
            self.pairs.append(f"{what}, then {now[2]}")


def writes(func: Any, argument: Any) -> bool:
    """A collective's schema does not say what it writes: all of it, then."""
    return func.namespace == "c10d" or (argument.alias_info is not None and argument.alias_info.is_write)


def storages(nested: Any) -> Iterator[int]:
    for tensor in tensors(nested):
        if tensor.untyped_storage().nbytes():
            yield tensor.untyped_storage().data_ptr()


class Device:
    """The stream on which this thread launches."""

    def __init__(self) -> None:
        self.current = Stream()

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before


def simulate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``torch.cuda``'s streams and events these. Operators run on the CPU, in the order of the host."""
    device = Device()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: device.current)
    monkeypatch.setattr(torch.cuda, "stream", device.on)
