"""Who is how far ahead, and who has to wait: stale synchronous parallel. Plain numbers, no processes.

A worker's clock is the number of gradients that it has pushed. It continues as soon as its lead over the slowest
worker that is still there is within the bound: 0 is a barrier after each gradient, infinity never waits.
"""

from __future__ import annotations


class Clocks:
    """The clocks of all workers that have not left."""

    def __init__(self, workers: int, bound: float) -> None:
        self.bound = bound
        self.largest_lead = 0
        """The largest lead with which a worker continued."""
        self._clocks = dict.fromkeys(range(workers), 0)
        self._waiting: list[int] = []

    @property
    def present(self) -> int:
        """Workers that have not left."""
        return len(self._clocks)

    @property
    def waiting(self) -> int:
        """Workers that have pushed and wait."""
        return len(self._waiting)

    def tick(self, worker: int) -> None:
        """``worker`` has pushed a gradient and waits."""
        self._clocks[worker] += 1
        self._waiting.append(worker)

    def leave(self, worker: int) -> None:
        """``worker`` is done: no worker waits for it any more."""
        del self._clocks[worker]

    def let_go(self) -> list[int]:
        """The workers that may go on now, in the order in which they came; they wait no longer."""
        slowest = min(self._clocks.values(), default=0)
        leads = {worker: self._clocks[worker] - slowest for worker in self._waiting}
        free = [worker for worker, lead in leads.items() if lead <= self.bound]
        self._waiting = [worker for worker in self._waiting if worker not in free]
        self.largest_lead = max([self.largest_lead, *(leads[worker] for worker in free)])
        return free
