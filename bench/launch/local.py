"""The launcher of one machine: the parent's side of the fork server. One call runs all ranks of a job."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from bench import messages
from bench.job import Job, LaunchResult, R
from bench.launch.channel import Channel, Closed
from bench.launch.launcher import Host, LaunchError
from bench.launch.server_process import ServerProcess, server_environment
from bench.measure.machine import limits
from bench.measure.machine.torch_build import Machine
from results.decode import decode

__all__ = ["LocalLauncher", "launcher_for", "server_environment", "warming"]

PRELOAD = ("torch", "torch.distributed", "bench.worker")
"""What every rank needs; engines add their own (``PRELOAD`` of their packages)."""
SLACK_S = 150.0
"""Seconds beyond twice a launch's time limit (for the factory, then for the ranks) after which its server is hung.

More than twice the sum of the server's own limits: forking, collecting stacks and output, ending orphans."""


_warming: dict[frozenset[str], LocalLauncher] = {}


@contextlib.contextmanager
def warming(preload: tuple[str, ...]) -> Iterator[None]:
    """Starts a fork server ahead of its use: it imports torch while the block does something else.

    ``launcher_for`` hands it out; an unused one is shut down on exit.
    """
    _warming[frozenset(preload)] = LocalLauncher(preload)
    try:
        yield
    finally:
        close_warming()


def launcher_for(preload: tuple[str, ...]) -> LocalLauncher:
    """The launcher that is warming up for these modules, else a new one; one that warms up for others is closed."""
    launcher = _warming.pop(frozenset(preload), None)
    close_warming()
    return launcher or LocalLauncher(preload)


def close_warming() -> None:
    while _warming:
        _warming.popitem()[1].close()


class LocalLauncher:
    """Starts a fork server and sends it jobs. Close it, or leave its ``with`` block, to end every process.

    The server starts warming up at once and in parallel; ``machine`` waits for it. ``command`` and
    ``variables`` of its environment say whose code it runs, if not this one's (``bench.regress.revision``).
    """

    def __init__(
        self,
        preload: tuple[str, ...] = (),
        *,
        command: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._preload = [*PRELOAD, *preload]
        self._command = command
        self._variables = dict(variables or {})
        self._machine: Machine | None = None
        self.status = 0
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def hosts(self) -> list[Host]:
        """This machine; blocks until the server is warm. Raises LaunchError."""
        return [Host(socket.gethostname(), self.machine, limits.usable_cores())]

    @property
    def machine(self) -> Machine:
        """Devices and build of torch on this machine; blocks until the server is warm. Raises LaunchError."""
        if self._machine is None:
            self._machine = self._greeting() or self._greeting(again=True)
        if self._machine is None:
            raise LaunchError(
                f"the fork server died while it imported {', '.join(self._preload)}: {self._server.last_line()}"
            )
        return self._machine

    def _greeting(self, *, again: bool = False) -> Machine | None:
        """The machine, from the warm server; None if the server died. ``again``: replaces a killed one first."""
        if again:
            if self._process.wait() >= 0:
                return None
            self._replace()
        try:
            greeting: Machine = decode(self._channel.receive(), Machine, "machine")
        except (Closed, OSError):
            return None
        return greeting

    def launch(self, job: Job[R]) -> LaunchResult[R]:
        """Runs all ranks of ``job`` to their end. Never raises for what a rank does."""
        if self._machine and self._process.poll() is not None:  # it died with nothing to do: no launch is lost
            self._replace()
        try:
            assert self.machine
            self._channel.socket.settimeout(2 * job.timeout_s + SLACK_S)
            self._channel.send(self._message(job))
            result = self._result(self._channel.receive(), job)
            self._channel.socket.settimeout(None)
        except LaunchError as error:
            return LaunchResult("failed", str(error))
        except TimeoutError:
            self._replace()
            waited = 2 * job.timeout_s + SLACK_S
            return LaunchResult("timeout", f"no answer from the fork server in {waited:g} s")
        except (Closed, OSError):
            self._channel.close()  # a server that still runs ends by it
            ending, last = self._process.wait(), self._server.last_line()
            self._replace()
            reason = f"the fork server ended with code {ending} ({last}); a new one was started"
            return LaunchResult("failed", reason, by_chance=ending < 0)
        return result

    def _replace(self) -> None:
        """Starts another server in the place of one that is dead or does not answer."""
        self._server.close(kill=True)
        self._start()

    def _message(self, job: Job[Any]) -> dict[str, Any]:
        """The job as it is sent."""
        return messages.job_message(job)

    def _result(self, message: dict[str, Any], job: Job[R]) -> LaunchResult[R]:
        """The result as it was received."""
        return messages.read_result(message, job)

    def close(self) -> None:
        """Ends the server and, with it, every rank and what a rank has started."""
        self._server.close(kill=self._machine is None)  # while it imports, it reads nothing and has no ranks

    def _start(self) -> None:
        self._machine = None
        self._server = ServerProcess(self._preload, command=self._command, variables=self._variables)

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        return self._server.process

    @property
    def _channel(self) -> Channel:
        return self._server.channel
