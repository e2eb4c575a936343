"""One rank's process as the server sees it: its pid, its pipes, and how it ended."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from bench.record import RankEnd

LAST_WORDS_BYTES = 4096


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

    def read(self, fd: int) -> bool:
        """Takes what is in a pipe; False once the pipe is closed."""
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return True
        if fd == self.result_fd:
            self.result += data
        else:
            self.log += data
            del self.log[:-LAST_WORDS_BYTES]
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
            return "stopped by the launcher"
        assert self.wait_status is not None
        code = os.waitstatus_to_exitcode(self.wait_status)
        if code < 0:
            return f"killed by signal {-code} ({signal.Signals(-code).name})"
        error = self.answer().get("error")
        if error:
            return f"{error['type']}: {error['message']}"
        return f"exited with code {code}" + ("" if code or self.result else " without a result")

    def end(self) -> RankEnd:
        return RankEnd(self.rank, self.ending(), self.log.decode(errors="replace").strip())

    def close(self) -> None:
        for fd in (self.pid_fd, self.result_fd, self.log_fd):
            os.close(fd)
