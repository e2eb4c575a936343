"""Sends and receives that go on while the rank computes.

gloo receives only what has been asked for. A small bucket is asked of all peers at once (``all_at_once``). With a large
one all of them would send to this rank together, more than a link's queue holds: what it drops is sent again, after a
pause (docs/design/tried.md). Large ones are exchanged with one peer after the other, and somebody must be there when
one is done. The thread that trains is in the middle of backward then; another one, the ``Wire``, is there.

A job is a generator: it yields what it has put under way.

Profilers and dispatch modes watch the thread that trains. So the wire's thread neither takes nor frees memory, runs a
job under the modes of the thread that started it, and gives ranges to the profiler, with the tensors that they are
about (``bench.measure.time.timeline`` and ``.blocks`` read them).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._profiler import _RecordFunctionFast
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

Works = tuple[dist.Work | None, ...]
Job = Callable[[], Iterator[Works]]
Finish = Callable[[], None]
"""Waits until a collective's result may be used (on a GPU: by what is enqueued from now on)."""

Started = tuple[Job, list[TorchDispatchMode], "Future[None]"]
"""A job, the modes of the thread that started it, and where its end is told."""

UNDER_WAY = 2
"""Exchanges at a time: with one peer, and with the next, which has begun when the first one is done."""


def wait(*works: dist.Work | None) -> None:
    for work in works:
        if work is not None:
            work.wait()


def all_at_once(job: Job) -> Finish:
    """Puts all of a job under way; returns what waits for it."""
    flying = list(job())

    def finish() -> None:
        while flying:
            wait(*flying.pop(0))

    return finish


@dataclass
class Flight:
    """What is under way for a job, whose end is told with the ``last`` of it."""

    works: Works
    done: Future[None]
    last: bool = False

    def land(self) -> None:
        try:
            wait(*self.works)
        except Exception as error:
            fail(self.done, error)
        self.works = ()
        if self.last and not self.done.done():
            self.done.set_result(None)


class Wire:
    """Carries out jobs on a thread of its own.

    All ranks start the same jobs in the same order, and what is under way is waited for in that order: whoever waits
    for a peer waits for one that is behind, so that nobody waits in a circle.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Started] = SimpleQueue()
        self._flying: deque[Flight] = deque()
        self._thread: Thread | None = None

    def start(self, name: str, job: Job, tensors: list[Tensor]) -> Finish:
        """Has ``job`` carried out on ``tensors``; returns what waits for its end, and raises what went wrong.

        What the job refers to lives until then.
        """
        if self._thread is None:
            self._thread = Thread(target=self._run, name="wire", daemon=True)
            self._thread.start()
        done: Future[None] = Future()
        with _RecordFunctionFast(f"engine::{name}", tensors):
            self._jobs.put((job, _get_current_dispatch_mode_stack(), done))
        held = [job]

        def finish() -> None:
            with _RecordFunctionFast("engine::wait"):
                done.result()
            held.clear()

        return finish

    @torch.no_grad()
    def _run(self) -> None:
        while True:
            started = self._jobs.get()
            with _RecordFunctionFast("engine:communication"):
                self._begin(started)
                del started
                while self._flying:
                    try:
                        self._begin(self._jobs.get_nowait())
                    except Empty:
                        self._flying.popleft().land()

    def _begin(self, started: Started) -> None:
        """Puts a job under way, as far as there is room."""
        job, modes, done = started
        try:
            with ExitStack() as watched:
                for mode in modes:
                    watched.enter_context(mode)
                steps = job()
                while (works := self._next(steps)) is not None:
                    self._flying.append(Flight(works, done))
            if self._flying and self._flying[-1].done is done:
                self._flying[-1].last = True
            else:
                done.set_result(None)
        except Exception as error:
            fail(done, error)

    def _next(self, steps: Iterator[Works]) -> Works | None:
        """What a job puts under way next, once there is room for it; None at its end."""
        while len(self._flying) >= UNDER_WAY:
            self._flying.popleft().land()
        return next(steps, None)


def fail(done: Future[None], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
