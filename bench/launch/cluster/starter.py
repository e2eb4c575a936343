"""What starts the host servers of a cluster, and starts one again that has ended."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from bench.checks import ConfigError

LEAVE_S = 10.0
"""How long what started the host servers may take to end."""
TERMINATED_S = 2.0
"""How long it may take to end once it is asked to: srun and ssh then tell the other side."""
REJOIN_S = 5.0
"""How long a host server that has closed its connection may take to join again by itself: it may have lost the
coordinator for a moment. After that it counts as ended."""
SHOWN = 60
"""Characters of a command in a message."""


@dataclass(frozen=True)
class Loss:
    """How a host was lost."""

    reason: str
    at_s: float
    """On the coordinator's monotonic clock."""
    has_ended: bool = False
    """Whether the other side closed the connection, as it does when its process ends."""


class Starter(Protocol):
    """Starts host servers. Hosts are numbered."""

    def failure(self, index: int) -> str:
        """How the start of this host's server failed, or that it has ended; empty while it runs."""
        ...

    def restart(self, index: int, loss: Loss) -> bool:
        """Starts the server of this host, which is lost, again if it has ended, at most once; whether it did."""
        ...

    def end(self) -> None:
        """Ends what it started, once the host servers have been sent away."""
        ...


class StartedElsewhere:
    """Host servers that this process did not start: nothing is known of their start."""

    def failure(self, index: int) -> str:
        return ""

    def restart(self, index: int, loss: Loss) -> bool:
        return False

    def end(self) -> None:
        """Nothing to end."""


class Commands:
    """Commands that start host servers; each reads the secret from its standard input."""

    def __init__(self, commands: Mapping[int, list[str]], secret: str, *, for_all: list[str] | None = None) -> None:
        """``commands`` by the host's number. ``for_all``: starts all hosts, and ``commands`` start one again.

        Raises ConfigError.
        """
        self._commands, self._secret, self._for_all = commands, secret, for_all
        self._of_all: subprocess.Popen[bytes] | None = None
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._restarted: set[int] = set()
        first = for_all or next(iter(commands.values()))
        try:
            if for_all:
                self._of_all = self._started(for_all)
            else:
                for index, words in commands.items():
                    self._processes[index] = self._started(words)
        except OSError as error:
            self.end()
            raise ConfigError(f"{first[0]} cannot be run to start host servers ({error.strerror})") from error

    def failure(self, index: int) -> str:
        words, process = self._for_all, self._of_all
        if index in self._processes:
            words, process = self._commands[index], self._processes[index]
        if words is None or process is None or process.poll() is None:
            return ""
        return f"{shlex.join(words)[:SHOWN]} ... exited with status {process.returncode}"

    def restart(self, index: int, loss: Loss) -> bool:
        if index in self._restarted or index not in self._commands or not self._has_ended(index, loss):
            return False
        self._restarted.add(index)
        with contextlib.suppress(OSError):
            self._processes[index] = self._started(self._commands[index])
            return True
        return False

    def _has_ended(self, index: int, loss: Loss) -> bool:
        """Whether the host's server has ended: by its own command, else by its connection."""
        if index in self._processes:
            return self._processes[index].poll() is not None
        return loss.has_ended and time.monotonic() - loss.at_s > REJOIN_S

    def end(self) -> None:
        """Waits for the commands; those that stay are terminated, then killed."""
        for seconds, stop in ((LEAVE_S, subprocess.Popen.terminate), (TERMINATED_S, subprocess.Popen.kill)):
            deadline = time.monotonic() + seconds
            for process in self._all():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=max(0.0, deadline - time.monotonic()))
            for process in self._all():
                if process.poll() is None:
                    stop(process)
        for process in self._all():
            process.wait()

    def _all(self) -> Iterator[subprocess.Popen[bytes]]:
        yield from self._processes.values()
        if self._of_all:
            yield self._of_all

    def _started(self, words: list[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)
        assert process.stdin
        with contextlib.suppress(OSError), process.stdin:
            process.stdin.write(f"{self._secret}\n".encode())
        return process
