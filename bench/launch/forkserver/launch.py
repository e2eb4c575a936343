"""The ranks of one job on this host: started, waited for, stopped, and removed with all that they started."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import signal
import socket
import time
from collections.abc import Collection, Iterator
from typing import Any

from bench import causes
from bench.job import Job, LaunchResult
from bench.launch.channel import Channel
from bench.launch.forkserver.outcome import failed_start_count, oom_kill_count, outcome
from bench.launch.forkserver.parent_watch import ParentWatch
from bench.launch.forkserver.rank_handle import Rank
from bench.launch.forkserver.start import spawn_rank
from bench.launch.forkserver.templates import StartRank, Template, TemplateLost, forking, stop_requested
from bench.launch.orphans import end_orphans
from bench.launch.prctl import die_with_parent, outlive_parent
from bench.network.lab import Lab, NetworkError
from bench.placement import Rendezvous, Slice

GRACE_S = 1.0
"""After the first rank's failure: time for the others to notice it and say so before they are killed."""
STACKS_S = 0.3
"""Time for a rank that still runs to write its stacks before it is killed."""
READS_AT_THE_END = 32
"""More than a pipe can hold; a process that is not a rank may write into it for ever."""


class EndedFromOutside(Exception):
    """What the ranks need has ended or is stopped: the lab's relay, with every link; or the host server."""


class ForkedLaunch:
    """The ranks of one job on this host, from the first fork to the last reaped process."""

    def __init__(
        self,
        job: Job[Any],
        part: Slice,
        lifeline: Channel,
        spared: Collection[int] = (),
        template: Template | None = None,
        *,
        why_spawn: str = "",
        loaded_by_ranks: str = "",
    ) -> None:
        """Ranks are forked from ``template``, else from this process; ``why_spawn``: why neither is possible.

        ``spared``: children of this process that outlive the launch.
        """
        self.job = job
        self.slice = part
        self.stop_requested = False
        self.spared = frozenset(spared)
        self.template = template
        self.why_spawn = why_spawn
        self.loaded_by_ranks = loaded_by_ranks
        self.lifeline = lifeline
        self.ranks: list[Rank] = []
        self.lab: Lab | None = None
        self.selector = selectors.DefaultSelector()
        self.oom_kills, self.failed_starts = oom_kill_count(), failed_start_count()

    def run(self) -> LaunchResult[Any]:
        started = time.perf_counter()
        outlive_parent()  # to end what ranks have started, which the kernel would leave; the lifeline tells
        try:
            self._start()
            timed_out = not self._wait(started + self.job.timeout_s)
            result = outcome(self.job, self.ranks, timed_out, self.oom_kills, self.failed_starts)
        except NetworkError as error:
            result = LaunchResult("unsupported", str(error))
        except OSError as error:
            result = LaunchResult("failed", self._not_started(causes.in_words(error)))
        except TemplateLost:
            result = LaunchResult("failed", "the process that loaded the workload was killed", by_chance=True)
        except EndedFromOutside as error:
            self._stop(grace_s=0)
            result = LaunchResult("failed", str(error), ends=[rank.end() for rank in self.ranks])
        finally:
            self._clear()
        return dataclasses.replace(
            result,
            total_s=time.perf_counter() - started,
            start_method=self._start_method(),
        )

    def _not_started(self, cause: str) -> str:
        numbers, started = self.slice.numbers, len(self.ranks)
        if started == len(numbers):
            return cause
        return f"rank {numbers[started]} could not be started ({started} of {len(numbers)} ranks were): {cause}"

    def _start_method(self) -> str:
        if self.why_spawn:
            return f"spawn ({self.why_spawn})"
        return f"fork; each rank loads the workload ({self.loaded_by_ranks})" if self.loaded_by_ranks else "fork"

    def _start(self) -> None:
        self.selector.register(self.lifeline, selectors.EVENT_READ, None)
        if self.job.network:
            self.lab = Lab(self.job.network, self._host_of(self.slice.numbers[-1]) + 1)
            if self.lab.relay_fd is not None:
                self.selector.register(self.lab.relay_fd, selectors.EVENT_READ, self.lab)
        with self._rendezvous() as rendezvous, self._starter() as start:
            for number in self.slice.numbers:
                with self._inside(number):
                    rank = start(self.job, number, self.slice.placement(number), rendezvous)
                self.ranks.append(rank)
        for rank in self.ranks:
            for fd in (rank.pid_fd, rank.result_fd, rank.log_fd):
                self.selector.register(fd, selectors.EVENT_READ, rank)

    @contextlib.contextmanager
    def _rendezvous(self) -> Iterator[Rendezvous]:
        """Where ranks open their store: a socket of this host if it has rank 0, whose address other hosts are sent."""
        if self.slice.store_address:
            yield Rendezvous(self.slice.store_address, self.slice.store_port)
            return
        processes = self.job.world_size + self.job.servers
        with self._inside(0) as address, socket.socket() as listener:
            listener.bind((address, 0))
            listener.listen(processes + 8)
            port = listener.getsockname()[1]
            if len(self.slice.counts) > 1:
                self.lifeline.send({"launch": self.slice.launch, "store": [address, port]})
            yield Rendezvous(address, port, listener)

    def _starter(self) -> contextlib.AbstractContextManager[StartRank]:
        return contextlib.nullcontext(spawn_rank) if self.why_spawn else forking(self.template, self.job)

    def _host_of(self, number: int) -> int:
        return self.job.network.host_of(number, self.job.world_size) if self.job.network else 0

    def _inside(self, number: int) -> contextlib.AbstractContextManager[str]:
        """The address where a process lives; what is started or opened within the block is there too."""
        return self.lab.inside(self._host_of(number)) if self.lab else contextlib.nullcontext(self.slice.address)

    def _wait(self, deadline: float) -> bool:
        """Until all ranks have ended, or one has failed and the rest are stopped. False if time ran out."""
        parent = ParentWatch(is_needed=self.slice.launch > 0)
        while any(rank.wait_status is None for rank in self.ranks):
            if time.perf_counter() >= deadline:
                self._stop(grace_s=0)
                return False
            self._pump(min(deadline, parent.due_s))
            if parent.sees_stopped():
                raise EndedFromOutside("the host server is stopped by a signal such as SIGSTOP")
            if self.stop_requested or any(rank.failed for rank in self.ranks):
                self._stop(grace_s=GRACE_S)
        return True

    def _pump(self, deadline: float) -> None:
        for key, _ in self.selector.select(max(0.0, deadline - time.perf_counter())):
            if key.data is None:
                self.stop_requested |= stop_requested(self.lifeline, self.slice.launch)
                continue
            if key.data is self.lab:
                self.selector.unregister(key.fd)
                raise EndedFromOutside("network=lab: the process between its hosts ended")
            rank: Rank = key.data
            if key.fd == rank.pid_fd:
                rank.reap()
                self.selector.unregister(key.fd)
                self._drain(rank)
            elif not rank.read(key.fd):
                self.selector.unregister(key.fd)

    def _stop(self, grace_s: float) -> None:
        """Ends the ranks that still run: leave them ``grace_s``, ask for their stacks, then kill."""
        self._pump_for(grace_s)
        for rank in self.ranks:
            rank.note_what_holds_it()
        for number in (signal.SIGUSR1, signal.SIGKILL):
            for rank in self.ranks:
                if rank.wait_status is None:
                    rank.stopped_by_us = True
                    rank.kill_group(number)
            self._pump_for(STACKS_S if number == signal.SIGUSR1 else 10.0)

    def _pump_for(self, seconds: float) -> None:
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline and any(rank.wait_status is None for rank in self.ranks):
            self._pump(deadline)

    def _drain(self, rank: Rank) -> None:
        """Reads what is still in the pipes of a rank that has ended."""
        for fd in (rank.result_fd, rank.log_fd):
            os.set_blocking(fd, False)
            for _ in range(READS_AT_THE_END):
                if fd not in self.selector.get_map() or not rank.read(fd) or not select_now(fd):
                    break

    def _clear(self) -> None:
        for rank in self.ranks:
            if rank.wait_status is None:
                rank.kill_group(signal.SIGKILL)
                rank.reap()
            rank.close()
        self.selector.close()
        if self.lab:
            self.lab.close()
        end_orphans(self.spared)
        die_with_parent(os.getppid())


def select_now(fd: int) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        return bool(selector.select(0))
