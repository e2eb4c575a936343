"""Progress of a sweep on stderr: one bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from results.shown import printable
from terminal.tables import console

PLAIN_EVERY_S = 10.0
"""Seconds between plain progress lines."""


class SweepProgress:
    """Counts the launches of a sweep. ``note`` prints a line above the bar."""

    def __init__(self, launches: int) -> None:
        self._console = console(stderr=True)
        self._total = launches
        self._done = 0
        self._started = self._printed = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=launches)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def start(self, what: str) -> None:
        """Shows the launch that runs now."""
        if self._bar:
            self._bar.update(self._task, description=what)

    def advance(self, what: str, launches: int = 1) -> None:
        """Counts launches that ended or will not be made."""
        self._done += launches
        if self._bar:
            self._bar.advance(self._task, launches)
            return
        now = time.monotonic()
        if now - self._printed >= PLAIN_EVERY_S or self._done == self._total:
            self._printed = now
            spent = now - self._started
            left = spent / self._done * (self._total - self._done)
            self.note(f"{self._done}/{self._total} launches, {spent:.0f} s, about {left:.0f} s left: {what}")

    def note(self, line: str) -> None:
        self._console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
