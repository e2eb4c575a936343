"""The native engine's P2P thread: exchanges in order, few transfers posted at a time, errors raised by ``wait``."""

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

from bench.engines.native.p2p_thread import MAX_POSTED, P2PThread, PostedExchange, Transfers


class Sent:
    """A work handle, as of a process group; it logs its start and its end."""

    def __init__(self, name: str, log: list[str], arrives: Event | None = None, error: str = "") -> None:
        self.name, self.log, self.arrives, self.error = name, log, arrives, error
        log.append(f"+{name}")

    def wait(self) -> None:
        if self.arrives:
            assert self.arrives.wait(10)
        if self.error:
            raise RuntimeError(self.error)
        self.log.append(f"-{self.name}")


def sends(log: list[str], *names: str, **sent: Any) -> Any:
    """An exchange that sends ``names`` one after the other."""

    def steps() -> Iterator[Transfers]:
        for name in names:
            yield (Sent(name, log, **sent),)  # type: ignore[misc]

    return steps


def test_exchanges_run_in_order_with_two_transfers_posted() -> None:
    log: list[str] = []
    gate, thread = Event(), P2PThread()
    first = thread.start("all_gather", sends(log, "a", "b", "c", arrives=gate), [])
    second = thread.start("all_gather", sends(log, "d"), [])
    gate.set()
    second.wait()
    first.wait()
    assert log == ["+a", "+b", "-a", "+c", "-b", "+d", "-c", "-d"]
    posted, highest = 0, 0
    for entry in log:
        posted += 1 if entry[0] == "+" else -1
        highest = max(highest, posted)
    assert highest == MAX_POSTED


def test_an_exchange_that_sends_nothing_ends_while_another_is_posted() -> None:
    log: list[str] = []
    gate, thread = Event(), P2PThread()
    first = thread.start("all_gather", sends(log, "a", arrives=gate), [])
    second = thread.start("all_gather", sends(log), [])
    gate.set()
    second.wait()
    first.wait()
    assert log == ["+a", "-a"]


def test_a_small_exchange_is_posted_at_once() -> None:
    log: list[str] = []
    exchange = PostedExchange(sends(log, "a", "b", "c"))
    assert log == ["+a", "+b", "+c"]
    exchange.wait()
    assert log[3:] == ["-a", "-b", "-c"]


def test_an_error_is_raised_by_the_wait_of_its_own_exchange() -> None:
    log: list[str] = []
    gate, thread = Event(), P2PThread()
    good = thread.start("all_gather", sends(log, "a", arrives=gate), [])
    bad = thread.start("all_gather", sends(log, "b", "c", error="peer is gone"), [])
    unfit = thread.start("all_gather", lambda: iter([(Sent("d", log),), 1 / 0]), [])  # type: ignore[arg-type, list-item]
    after = thread.start("all_gather", sends(log, "e"), [])
    gate.set()
    good.wait()
    with pytest.raises(RuntimeError, match="peer is gone"):
        bad.wait()
    with pytest.raises(ZeroDivisionError):
        unfit.wait()
    after.wait()


def test_the_tensors_of_an_exchange_are_freed_by_the_thread_that_waits() -> None:
    freed_by: list[int] = []

    class Tensors:
        pass

    def start(thread: P2PThread) -> Any:
        tensors = Tensors()
        weakref.finalize(tensors, lambda: freed_by.append(get_ident()))

        def steps() -> Iterator[Transfers]:
            assert tensors
            yield (Sent("a", []),)  # type: ignore[misc]

        return thread.start("all_gather", steps, [])

    gc.disable()
    try:
        for _ in range(200):
            start(P2PThread()).wait()
    finally:
        gc.enable()
    assert freed_by == [get_ident()] * 200


def test_operators_of_an_exchange_run_under_the_dispatch_modes_of_the_thread_that_started_it() -> None:
    class Watch(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.seen: list[str] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen.append(func._schema.name)
            return func(*args, **(kwargs or {}))

    def adds(tensor: Tensor) -> Any:
        def steps() -> Iterator[Transfers]:
            tensor.add_(1)
            yield (Sent("a", []),)  # type: ignore[misc]

        return steps

    thread, tensor = P2PThread(), torch.zeros(1)
    with Watch() as watch:
        thread.start("all_reduce", adds(tensor), [tensor]).wait()
    thread.start("all_reduce", adds(tensor), [tensor]).wait()
    assert watch.seen == ["aten::add_"] and tensor.item() == 2
