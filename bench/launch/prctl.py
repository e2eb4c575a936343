"""prctl(2) of Linux: the death of the parent, orphaned descendants, and the name of the process."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(parent: int) -> None:
    """This process is killed when ``parent`` dies, and leaves at once if that is its parent no more."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(70)


def outlive_parent() -> None:
    """Takes ``die_with_parent`` back."""
    _prctl(PR_SET_PDEATHSIG, 0)


def adopt_orphans() -> None:
    """Makes this process the parent of descendants that lose theirs, so that it can tell whether any are left."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """Sets the name of this process in ps and top; at most 15 bytes."""
    _prctl(PR_SET_NAME, name.encode())


def _prctl(option: int, argument: int | bytes) -> None:
    ctypes.CDLL(None).prctl(option, argument)
