"""The time that a sweep may take: whole rounds, until the next one would end too late."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from results.launches import ENOUGH_LAUNCHES


class Budget:
    """Seconds from its construction on; ``None`` is no limit."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._started = clock()
        self._longest_round_s = 0.0
        self.rounds = 0
        """Rounds that have ended."""

    def allows_round(self) -> bool:
        """Whether another round, as long as the longest so far, would end in time."""
        if self.seconds is None:
            return True
        return self._clock() - self._started + self._longest_round_s < self.seconds

    @contextlib.contextmanager
    def round(self) -> Iterator[None]:
        """A round, whose duration the next ones are expected to have."""
        started = self._clock()
        yield
        self.rounds += 1
        self._longest_round_s = max(self._longest_round_s, self._clock() - started)

    def announcement(self, rounds: int) -> str:
        """The line that is printed before the sweep starts."""
        return f"time budget: {duration(self.seconds or 0)}; at most {rounds} rounds, the last one ends within it"

    def spent(self, rounds: int, launches: int) -> str:
        """The line for a sweep that had to stop before its last round.

        ``launches`` is the smallest number of any configuration.
        """
        line = f"time budget of {duration(self.seconds or 0)} spent after {self.rounds} of {rounds} rounds"
        if launches < ENOUGH_LAUNCHES:
            line += (
                f"; 95 % confidence intervals need {ENOUGH_LAUNCHES} launches per configuration, and there are "
                f"{launches}: raise budget_s, or continue this sweep with resume=true"
            )
        return line


def duration(seconds: float) -> str:
    """Such as ``45 min`` or ``90 s``."""
    minutes = seconds / 60
    return f"{minutes:g} min" if minutes >= 2 and minutes == int(minutes) else f"{seconds:g} s"
