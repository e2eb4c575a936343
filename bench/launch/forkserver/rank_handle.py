"""One rank's process as the server sees it: its pid, its pipes, and how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

from bench import causes
from bench.launch.forkserver.rank_main import PIPE_CLOSED
from bench.measure.machine import process_stat
from results.record import RankEnd
from results.shown import printable

LAST_WORDS_BYTES = 4096
LOG_BYTES = 1 << 15
"""Of a rank's output that is searched for the cause of its end: Python's report of a fatal error can follow it."""
PF_EXITING = 4
"""Flag of a process that ends, by which the kernel closes its files (linux/sched.h)."""
STATES = {
    "T": "stopped by a signal such as SIGSTOP (state T)",
    "t": "stopped by a debugger (state t)",
    "D": "waiting for a device or a network file system (state D)",
}
"""Of a process that cannot go on by itself."""


class Rank:
    """One rank's process as the server sees it."""

    def __init__(self, rank: int, pid: int, result_fd: int, log_fd: int) -> None:
        self.rank = rank
        self.pid = pid
        self.pid_fd = os.pidfd_open(pid)
        self.result_fd = result_fd
        self.log_fd = log_fd
        self.result = bytearray()
        self.log = bytearray()
        self.wait_status: int | None = None
        self.stopped_by_us = False
        self.closed: set[str] = set()
        """Pipes that it has closed while it ran."""
        self.stuck = ""
        """Why it could not go on by itself when it was stopped by us; empty if nothing shows it."""

    def note_what_holds_it(self) -> None:
        """Looks at the process, before it is stopped."""
        if fields := self._stat():
            self.stuck = STATES.get(fields[0], "")
        with contextlib.suppress(OSError):
            most = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)[0]
            if not self.stuck and len(os.listdir(f"/proc/{self.pid}/fd")) >= most:
                self.stuck = f"out of file descriptors (at most {most} open files per process, ulimit -n)"

    def _stat(self) -> list[str]:
        return process_stat.fields(Path(f"/proc/{self.pid}"))

    def read(self, fd: int) -> bool:
        """Takes what is in a pipe; False once the pipe is closed."""
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return True
        if not data and (fields := self._stat()) and not int(fields[6]) & PF_EXITING:
            self.closed.add("result" if fd == self.result_fd else "log")
        if fd == self.result_fd:
            self.result += data
        else:
            self.log += data
            del self.log[:-LOG_BYTES]
        return bool(data)

    def reap(self) -> None:
        self.wait_status = os.waitpid(self.pid, 0)[1]
        self.kill_group(signal.SIGKILL)  # whatever the rank itself had started

    @property
    def failed(self) -> bool:
        """Whether it has ended without a result."""
        return self.wait_status is not None and (self.wait_status != 0 or not self.result)

    def kill_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return

    def answer(self) -> dict[str, Any]:
        """What the rank reported: its result, or an ``error``. Empty if it died before it could."""
        try:
            answer = json.loads(self.result)
        except ValueError:
            return {}
        return answer if isinstance(answer, dict) else {}

    def ending(self) -> str:
        if self.stopped_by_us:
            return f"{self.stuck}; ended by the launcher" if self.stuck else "stopped by the launcher"
        assert self.wait_status is not None
        code = os.waitstatus_to_exitcode(self.wait_status)
        error = self.answer().get("error")
        if error and code >= 0:
            return printable(f"{error['type']}: {error['message']}")
        if code == PIPE_CLOSED:
            return f"closed the pipe for its result, or all its file descriptors (exit code {code})"
        detail = f"; its output says: {self.quoted}" if self.quoted else ""
        if self.closed == {"result", "log"}:
            detail = "; before that it had closed its file descriptors"
        if code < 0:
            return f"killed by signal {-code} ({signal_name(-code)}){detail}"
        return f"exited with code {code}" + ("" if code or self.result else " without a result") + detail

    @property
    def quoted(self) -> str:
        """The system's error that the end of its output quotes, for a rank that could report none."""
        return causes.in_text(self.log.decode(errors="replace"))

    def end(self) -> RankEnd:
        words = self.log[-LAST_WORDS_BYTES:].decode(errors="replace")
        return RankEnd(self.rank, self.ending(), printable(words).strip())

    def close(self) -> None:
        for fd in (self.pid_fd, self.result_fd, self.log_fd):
            os.close(fd)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a real-time signal"
