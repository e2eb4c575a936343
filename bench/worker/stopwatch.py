"""How long the phases of a rank's life take."""

from __future__ import annotations

import time


class Stopwatch:
    """Names for the phases of a rank's life, in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
