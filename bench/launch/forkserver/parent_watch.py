"""Notices in a launch on a cluster that this fork server's parent, the host server, is stopped by a signal.

Such a host server passes no stop on and does not notice that the coordinator is gone.
"""

from __future__ import annotations

import math
import os
import time

from bench.measure.machine import process_stat

LOOK_S = 2.0
"""Seconds between two looks. The parent counts as stopped if two in a row see it so."""


class ParentWatch:
    """When the next look is due, and what it sees."""

    def __init__(self, *, is_needed: bool) -> None:
        self.due_s = time.perf_counter() + LOOK_S if is_needed else math.inf
        self._was_stopped = False

    def sees_stopped(self) -> bool:
        """Looks if a look is due."""
        if time.perf_counter() < self.due_s:
            return False
        self.due_s = time.perf_counter() + LOOK_S
        before, self._was_stopped = self._was_stopped, process_stat.is_stopped(os.getppid())
        return before and self._was_stopped
