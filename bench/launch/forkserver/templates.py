"""The server's side of templates: processes that load a user's workload and fork its ranks, outside of the server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import socket
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from bench.job import Job, LaunchResult, WorkloadJob, WorkloadSpec
from bench.launch.channel import Channel, Closed
from bench.launch.forkserver.outcome import STOPPED
from bench.launch.forkserver.rank_handle import Rank
from bench.launch.forkserver.start import fork_rank, pipes
from bench.launch.forkserver.template import as_message, receive, send, template
from bench.placement import Placement, Rendezvous, Slice
from results.shown import printable

MOST_TEMPLATES = 2
"""Workloads whose data stay in memory: cells of a round that alternate between two load each once."""
ANSWER_S = 60.0
"""How long a template may take to fork; it has nothing else to do."""
STACKS_S = 0.3
SHOWN_BYTES = 4096

StartRank = Callable[[Job[Any], int, Placement, Rendezvous], Rank]


class Cancelled(Exception):
    """The parent wants to end the launch, or is gone."""


def stop_requested(lifeline: Channel, launch: int) -> bool:
    """Whether the parent asks to stop this launch, among what it sent. Raises Cancelled once it is gone."""
    try:
        return any(message.get("stop") == launch for message in lifeline.received())
    except Closed:
        raise Cancelled from None


class LoadFailed(Exception):
    """The factory ended its process, or did not return in time: the result of the launch that needs it."""

    def __init__(self, result: LaunchResult[Any]) -> None:
        super().__init__(result.reason)
        self.result = result


class TemplateLost(Exception):
    """The process that ranks were to be forked from is gone, or does not answer."""


class Template:
    """A process that has loaded a workload, or tries to."""

    def __init__(self, spec: WorkloadSpec, lifeline: Channel) -> None:
        self.obstacle: str | None = None
        server = os.getpid()
        with contextlib.ExitStack() as opened:
            self._log = opened.enter_context(tempfile.TemporaryFile())
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            opened.callback(self._channel.close)
            with theirs:
                self.pid = os.fork()
                if self.pid == 0:
                    try:
                        lifeline.close()
                        self._channel.close()
                        template(spec, theirs, server, self._log.fileno())
                    finally:
                        os._exit(70)
            opened.callback(self._end)
            self._pid_fd = os.pidfd_open(self.pid)
            opened.callback(os.close, self._pid_fd)
            self._channel.settimeout(ANSWER_S)
            self._opened = opened.pop_all()

    def wait(self, job: WorkloadJob[Any], lifeline: Channel, launch: int) -> bool:
        """Whether the workload was loaded; how is in ``obstacle``. Raises LoadFailed and Cancelled."""
        deadline = time.monotonic() + job.timeout_s
        waited: list[Any] = [self._channel, lifeline]
        ready = waited[1:]
        while ready and self._channel not in ready:
            ready = select.select(waited, [], [], max(0.0, deadline - time.monotonic()))[0]
            if lifeline in ready and stop_requested(lifeline, launch):
                raise LoadFailed(LaunchResult("failed", "stopped while it loaded the workload", cause_order=STOPPED))
        factory = f"the factory {job.workload.called}"
        if not ready:
            words = self._last_output()
            raise LoadFailed(
                LaunchResult("timeout", f"{factory} still running after timeout_s={job.timeout_s:g}{words}")
            )
        answer, _ = receive(self._channel)
        if not answer:
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
            raise LoadFailed(
                LaunchResult("failed", f"{factory} ended the process that ran it, with {how}{self._last_output()}")
            )
        self.obstacle = answer["obstacle"]
        return bool(answer["loaded"])

    @property
    def alive(self) -> bool:
        return not select.select([self._pid_fd], [], [], 0)[0]

    @contextlib.contextmanager
    def forking(self, job: Job[Any]) -> Iterator[StartRank]:
        """What forks a rank of the job from this process; all are the server's children at the end of the block."""
        intermediate = os.pidfd_open(self._ask(as_message(job))["intermediate"])
        try:
            yield self._fork_rank
        finally:
            with contextlib.suppress(OSError):
                send(self._channel, {"end": True})
            select.select([intermediate], [], [], ANSWER_S)
            os.close(intermediate)

    def _fork_rank(self, job: Job[Any], number: int, placement: Placement, rendezvous: Rendezvous) -> Rank:
        with pipes() as (result_read, log_read, *theirs), contextlib.ExitStack() as opened:
            if job.network:
                space = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
                opened.callback(os.close, space)
                theirs.append(space)
            if rendezvous.listener:
                theirs.append(rendezvous.listener.fileno())
            message = {
                "rank": number,
                "placement": dataclasses.asdict(placement),
                "store": [rendezvous.address, rendezvous.port],
                "listens": rendezvous.listener is not None,
            }
            answer = self._ask(message, tuple(theirs))
            return Rank(number, answer["pid"], result_read, log_read)

    def _ask(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        try:
            send(self._channel, message, descriptors)
            answer, _ = receive(self._channel)
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            answer = {}
        if not answer:
            raise TemplateLost
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        return answer

    def _last_output(self) -> str:
        """The end of what the factory wrote, with its stacks if it still runs."""
        if self.alive:
            os.kill(self.pid, signal.SIGUSR1)
            select.select([self._pid_fd], [], [], STACKS_S)
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - SHOWN_BYTES))
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        stack = [line for line in lines if line.startswith("File ")]
        last = stack[:1] or lines[-1:]
        return f" ({printable(last[0])})" if last else ""

    def close(self) -> None:
        self._opened.close()

    def _end(self) -> None:
        for kill, target in ((os.killpg, self.pid), (os.kill, self.pid)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(target, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


class Templates:
    """The running templates by workload; the most recently used ones are kept."""

    def __init__(self, lifeline: Channel) -> None:
        self._lifeline = lifeline
        self._kept: OrderedDict[str, Template] = OrderedDict()

    @property
    def pids(self) -> set[int]:
        return {entry.pid for entry in self._kept.values()}

    def of(self, job: Job[Any], part: Slice) -> tuple[Template | None, str]:
        """The template of the job's workload; None where the server or the ranks load it, and why the ranks do.

        Raises LoadFailed and Cancelled.
        """
        if not isinstance(job, WorkloadJob) or job.workload.is_built_in:
            return None, ""
        key = json.dumps(dataclasses.asdict(job.workload))
        kept = self._kept.pop(key, None)
        if kept and not kept.alive:
            kept.close()
            kept = None
        if kept is None:
            while len(self._kept) >= MOST_TEMPLATES:
                self._kept.popitem(last=False)[1].close()
            kept = Template(job.workload, self._lifeline)
            try:
                loaded = kept.wait(job, self._lifeline, part.launch)
            except BaseException:
                kept.close()
                raise
            if not loaded or kept.obstacle:
                kept.close()
                return None, kept.obstacle or ""
        self._kept[key] = kept
        return kept, ""

    def close(self) -> None:
        while self._kept:
            self._kept.popitem()[1].close()


@contextlib.contextmanager
def forking(template_of_job: Template | None, job: Job[Any]) -> Iterator[StartRank]:
    """What forks a rank: the server itself, or the workload's template."""
    if template_of_job is None:
        yield fork_rank
    else:
        with template_of_job.forking(job) as start:
            yield start
