"""What starts the host servers of a cluster, and starts one again that has ended."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Mapping
from typing import Protocol

from bench.checks import ConfigError

LEAVE_S = 10.0
"""How long what started the host servers may take to end."""
SHOWN = 60
"""Characters of a command in a message."""


class Starter(Protocol):
    """Starts host servers. Hosts are numbered."""

    def failure(self, index: int) -> str:
        """How the start of this host's server failed, or that it has ended; empty while it runs."""
        ...

    def restart(self, index: int) -> bool:
        """Starts this host's server again if it has ended, at most once; whether it did."""
        ...

    def end(self) -> None:
        """Ends what it started, once the host servers have been sent away."""
        ...


class StartedElsewhere:
    """Host servers that this process did not start: nothing is known of their start."""

    def failure(self, index: int) -> str:
        return ""

    def restart(self, index: int) -> bool:
        return False

    def end(self) -> None:
        """Nothing to end."""


class Commands:
    """Commands that start host servers; each reads the secret from its standard input."""

    def __init__(self, commands: Mapping[int, list[str]], secret: str, *, shared: bool = False) -> None:
        """``commands`` by the host's number. ``shared``: the one with number 0 starts all hosts. Raises ConfigError."""
        self._commands, self._secret, self._shared = commands, secret, shared
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._restarted: set[int] = set()
        try:
            for index in commands:
                self._start(index)
        except OSError as error:
            self.end()
            program = next(iter(commands.values()))[0]
            raise ConfigError(f"{program} cannot be run to start host servers ({error.strerror})") from error

    def failure(self, index: int) -> str:
        number = 0 if self._shared else index
        process = self._processes.get(number)
        if process is None or process.poll() is None:
            return ""
        return f"{shlex.join(self._commands[number])[:SHOWN]} ... exited with status {process.returncode}"

    def restart(self, index: int) -> bool:
        if self._shared or index in self._restarted or not self.failure(index):
            return False
        self._restarted.add(index)
        with contextlib.suppress(OSError):
            self._start(index)
            return True
        return False

    def end(self) -> None:
        for process in self._processes.values():
            try:
                process.wait(timeout=LEAVE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, index: int) -> None:
        process = subprocess.Popen(self._commands[index], stdin=subprocess.PIPE, start_new_session=True)
        self._processes[index] = process
        assert process.stdin
        with contextlib.suppress(OSError), process.stdin:
            process.stdin.write(f"{self._secret}\n".encode())
