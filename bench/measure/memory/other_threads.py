"""Waits until the other threads of this process have nothing to do."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from bench.measure.machine import process_stat

PAUSE_S = 0.02
"""An idle machine schedules a thread that is ready to run well within this."""
LIMIT_S = 5.0
"""A thread that never sleeps is not waited for any longer."""
RUNNABLE = ("R", "D")
"""States of /proc: running or ready to run, and in a system call that cannot be interrupted."""


def wait_for_other_threads() -> None:
    """Pause, and go on pausing while another thread is ready to run, as it can be for long on a busy machine.

    A thread of gloo that is the last to hold a collective's tensors needs the GIL to release them. Tensors that it
    still holds as a watched step begins would be counted in all of that step.
    """
    end = time.monotonic() + LIMIT_S
    time.sleep(PAUSE_S)
    while _any_runnable() and time.monotonic() < end:
        time.sleep(PAUSE_S)


def _any_runnable() -> bool:
    """Whether any thread but this one is ready to run; False where /proc does not say."""
    own = str(threading.get_native_id())
    others = (task for task in Path("/proc/self/task").glob("*") if task.name != own)
    return any(fields[0] in RUNNABLE for task in others if (fields := process_stat.fields(task)))
