"""The time of a sweep: measured steps, and the overhead of measuring."""

from __future__ import annotations

import time
from collections import defaultdict

from rich.table import Table

from terminal.tables import console

LARGEST_PARTS = 3
"""Phases that one line names."""


class Breakdown:
    """Seconds of a sweep by phase, on the parent's clock."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def lap(self, phase: str) -> None:
        """Time since the last lap belongs to ``phase``; to none if it is empty (its parts are added by name)."""
        now = time.perf_counter()
        if phase:
            self.seconds[phase] += now - self._last
        self._last = now

    def add(self, phase: str, seconds: float) -> None:
        self.seconds[phase] += seconds

    def add_launch(self, seconds: dict[str, float], total_s: float) -> None:
        """A timing launch: the slowest rank's phases, and the rest (fork, exit, collection of results)."""
        named = {"measured_s": "measured steps", "warmup_s": "warm-up steps", "init_s": "rendezvous"}
        for name, phase in (*named.items(), ("setup_s", "engine and model set-up")):
            self.seconds[phase] += seconds.get(name, 0.0)
        self.seconds["fork and exit"] += max(0.0, total_s - sum(seconds.values()))

    def line(self) -> str:
        """The sweep's time, and how much of it was spent outside measured steps."""
        total = time.perf_counter() - self._started
        measured = self.seconds["measured steps"]
        parts = [(phase, seconds) for phase, seconds in self.seconds.items() if phase != "measured steps"]
        largest = sorted(parts, key=lambda part: -part[1])[:LARGEST_PARTS]
        words = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in largest)
        return (
            f"{total:.0f} s in all: {measured:.0f} s in measured steps, {max(0.0, total - measured):.0f} s outside them"
            + (f" (most: {words})" if words else "")
        )

    def show(self) -> None:
        """Prints the table to stderr, largest first, with the share of measured steps."""
        total = time.perf_counter() - self._started
        phases = dict(self.seconds)
        phases["everything else"] = max(0.0, total - sum(phases.values()))
        table = Table(title=f"Where {total:.1f} s went", title_justify="left")
        table.add_column("phase")
        table.add_column("s", justify="right")
        table.add_column("%", justify="right")
        for phase, seconds in sorted(phases.items(), key=lambda entry: -entry[1]):
            table.add_row(phase, f"{seconds:.1f}", f"{100 * seconds / total:.1f}")
        console(stderr=True).print(table)
