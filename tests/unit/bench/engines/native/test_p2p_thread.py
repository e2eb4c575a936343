"""The native engine's own thread: jobs in order, a bounded number of exchanges under way, errors where they belong."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from threading import Event, get_ident
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.engines.native.p2p_thread import UNDER_WAY, Wire, Works, all_at_once


class Sent:
    """Something under way, as a process group's work is; it writes down its beginning and its arrival."""

    def __init__(self, name: str, log: list[str], arrives: Event | None = None, error: str = "") -> None:
        self.name, self.log, self.arrives, self.error = name, log, arrives, error
        log.append(f"+{name}")

    def wait(self) -> None:
        if self.arrives:
            assert self.arrives.wait(10)
        if self.error:
            raise RuntimeError(self.error)
        self.log.append(f"-{self.name}")


def job(log: list[str], *names: str, **sent: Any) -> Any:
    """A job that sends ``names`` one by one."""

    def steps() -> Iterator[Works]:
        for name in names:
            yield (Sent(name, log, **sent),)  # type: ignore[misc]

    return steps


def test_jobs_are_carried_out_in_order_with_two_exchanges_under_way() -> None:
    log: list[str] = []
    gate, wire = Event(), Wire()
    first = wire.start("all_gather", job(log, "a", "b", "c", arrives=gate), [])
    second = wire.start("all_gather", job(log, "d"), [])
    gate.set()
    second()
    first()
    assert log == ["+a", "+b", "-a", "+c", "-b", "+d", "-c", "-d"]
    under_way, most = 0, 0
    for entry in log:
        under_way += 1 if entry[0] == "+" else -1
        most = max(most, under_way)
    assert most == UNDER_WAY


def test_a_job_that_sends_nothing_ends_while_another_is_under_way() -> None:
    log: list[str] = []
    gate, wire = Event(), Wire()
    first = wire.start("all_gather", job(log, "a", arrives=gate), [])
    second = wire.start("all_gather", job(log), [])
    gate.set()
    second()
    first()
    assert log == ["+a", "-a"]


def test_what_is_small_is_all_under_way_at_once() -> None:
    log: list[str] = []
    finish = all_at_once(job(log, "a", "b", "c"))
    assert log == ["+a", "+b", "+c"]
    finish()
    assert log[3:] == ["-a", "-b", "-c"]


def test_an_error_reaches_whoever_waits_for_the_job_that_had_it() -> None:
    log: list[str] = []
    gate, wire = Event(), Wire()
    good = wire.start("all_gather", job(log, "a", arrives=gate), [])
    bad = wire.start("all_gather", job(log, "b", "c", error="peer is gone"), [])
    unfit = wire.start("all_gather", lambda: iter([(Sent("d", log),), 1 / 0]), [])  # type: ignore[arg-type, list-item]
    after = wire.start("all_gather", job(log, "e"), [])
    gate.set()
    good()
    with pytest.raises(RuntimeError, match="peer is gone"):
        bad()
    with pytest.raises(ZeroDivisionError):
        unfit()
    after()


def test_what_a_job_holds_is_let_go_by_the_thread_that_waits() -> None:
    freed_by: list[int] = []

    class Held:
        pass

    def start(wire: Wire) -> Any:
        held = Held()
        weakref.finalize(held, lambda: freed_by.append(get_ident()))

        def steps() -> Iterator[Works]:
            assert held
            yield (Sent("a", []),)  # type: ignore[misc]

        return wire.start("all_gather", steps, [])

    gc.disable()
    try:
        for _ in range(200):
            start(Wire())()
    finally:
        gc.enable()
    assert freed_by == [get_ident()] * 200


def test_operators_of_a_job_are_seen_by_who_watches_the_thread_that_started_it() -> None:
    class Watch(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.seen: list[str] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen.append(func._schema.name)
            return func(*args, **(kwargs or {}))

    def adds(tensor: Tensor) -> Any:
        def steps() -> Iterator[Works]:
            tensor.add_(1)
            yield (Sent("a", []),)  # type: ignore[misc]

        return steps

    wire, tensor = Wire(), torch.zeros(1)
    with Watch() as watch:
        wire.start("all_reduce", adds(tensor), [tensor])()
    wire.start("all_reduce", adds(tensor), [tensor])()
    assert watch.seen == ["aten::add_"] and tensor.item() == 2
