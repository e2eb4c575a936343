"""Exchanges of tensors between pairs of ranks over gloo, which progress while the rank computes.

gloo receives only what was requested. A small exchange requests from all peers at once (``PostedExchange``). With a
large one, all peers would then send to this rank at the same time, which is more than a link's queue can hold: dropped
packets are sent again after a pause (docs/design/tried.md). So a large exchange runs with one peer after the other, and
the next transfer must be posted when the previous one is done. The training thread is busy with backward at that time.
A second thread (``P2PThread``) posts it.

Profilers and dispatch modes watch the training thread. So the second thread neither allocates nor frees memory, runs an
exchange under the dispatch modes of the thread that started it, and records profiler ranges with the tensors of the
exchange (``bench.measure.time.timeline`` and ``bench.measure.memory.allocations`` read them).
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

Transfers = tuple[dist.Work | None, ...]
"""Sends and receives that were posted together."""
Exchange = Callable[[], Iterator[Transfers]]
"""Posts its transfers one after the other and yields each."""

MAX_POSTED = 2
"""Transfers that are posted at a time: with one peer, and with the next one, which starts when the first is done."""


def wait_for(transfers: Transfers) -> None:
    for work in transfers:
        if work is not None:
            work.wait()


class PostedExchange:
    """An exchange in flight, all of whose transfers were posted at once."""

    def __init__(self, exchange: Exchange) -> None:
        self._posted = list(exchange())

    def wait(self) -> None:
        while self._posted:
            wait_for(self._posted.pop(0))


class QueuedExchange:
    """An exchange in flight on the P2P thread. Its tensors live until ``wait`` returns."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange: Exchange | None = exchange
        self.modes: list[TorchDispatchMode] = _get_current_dispatch_mode_stack()
        """Dispatch modes of the thread that started it."""
        self.done: Future[None] = Future()

    def wait(self) -> None:
        """Raises what failed on the P2P thread."""
        with _RecordFunctionFast("engine::wait"):
            self.done.result()
        self.exchange = None  # freed by this thread, never by the other one

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass
class PostedTransfers:
    """Transfers of a queued exchange that were posted and not yet waited for."""

    transfers: Transfers
    queued: QueuedExchange
    is_last: bool = False

    def wait(self) -> None:
        try:
            wait_for(self.transfers)
        except Exception as error:
            self.queued.fail(error)
        self.transfers = ()
        if self.is_last:
            self.queued.finish()


class P2PThread:
    """Runs exchanges, in the order in which they were started, on a thread of its own.

    All ranks start the same exchanges in the same order, and transfers are waited for in that order. So a rank only
    waits for peers that are behind it, and no ranks wait for each other in a circle.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[QueuedExchange] = SimpleQueue()
        self._posted: deque[PostedTransfers] = deque()
        self._thread: Thread | None = None

    def start(self, name: str, exchange: Exchange, tensors: list[Tensor]) -> QueuedExchange:
        """Queues ``exchange``. ``name`` and ``tensors`` are recorded in the profiler's trace."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name="p2p", daemon=True)
            self._thread.start()
        queued = QueuedExchange(exchange)
        with _RecordFunctionFast(f"engine::{name}", tensors):
            self._queue.put(queued)
        return queued

    @torch.no_grad()
    def _run(self) -> None:
        while True:
            queued = self._queue.get()
            with _RecordFunctionFast("engine:communication"):
                self._post(queued)
                del queued
                while self._posted:
                    try:
                        self._post(self._queue.get_nowait())
                    except Empty:
                        self._posted.popleft().wait()

    def _post(self, queued: QueuedExchange) -> None:
        """Posts all transfers of an exchange, each once there is room for it."""
        assert queued.exchange is not None
        try:
            with ExitStack() as watched:
                for mode in queued.modes:
                    watched.enter_context(mode)
                transfers = queued.exchange()
                while (posted := self._post_next(transfers)) is not None:
                    self._posted.append(PostedTransfers(posted, queued))
            if self._posted and self._posted[-1].queued is queued:
                self._posted[-1].is_last = True
            else:
                queued.finish()
        except Exception as error:
            queued.fail(error)

    def _post_next(self, transfers: Iterator[Transfers]) -> Transfers | None:
        """Posts the next transfers of an exchange; None at its end."""
        while len(self._posted) >= MAX_POSTED:
            self._posted.popleft().wait()
        return next(transfers, None)
