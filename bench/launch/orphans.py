"""Processes that a rank started and left behind, whatever session they hide in.

The fork server adopts them as children. Processes of a dead server are identified by an entry
in the environment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection

import psutil

MARK = "BENCH_FORK_SERVER"
"""The environment variable that a fork server is started with and all that comes of it inherits."""
WITHIN_S = 3.0
"""How long marked processes may take to be gone."""


def end_orphans(spared: Collection[int] = ()) -> None:
    """Kills and reaps all children of this process but ``spared``, adopted ones too; costs one system call where there
    is none.

    What an orphan has started is adopted in its turn.
    """
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        orphans = set(children()) - set(spared)
        if not orphans:
            return
        for orphan in orphans:
            os.kill(orphan, signal.SIGKILL)
            os.waitpid(orphan, os.WNOHANG)
        time.sleep(0.001)


def children() -> list[int]:
    """The processes whose parent this one is, ended or not."""
    return [child.pid for child in psutil.Process().children()]


def end_marked(mark: str) -> None:
    """Kills all processes of a fork server that is dead, until none is left."""
    deadline = time.monotonic() + WITHIN_S
    while kill_marked(mark) and time.monotonic() < deadline:
        time.sleep(0.01)


def kill_marked(mark: str) -> int:
    """Sends SIGKILL to every process with the mark but this one; how many there were."""
    killed = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # gone meanwhile, or another user's
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                process.kill()
                killed += 1
    return killed
