"""Durations of the phases of a rank."""

from __future__ import annotations

import time


class Stopwatch:
    """The phases of a rank by name, in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
