"""Claims of time on a machine that others use too: a disturbed measurement is repeated.

A claim that holds is never repeated. One that is broken fails its test at once where nothing disturbed the machine by
the suite's own instruments. Else it is measured again, and the test is skipped with the cause if each was disturbed.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import pytest

from bench.measure.machine.interference import PROC, TICKS_PER_S, MachineCounters, between, ours, read_machine
from bench.measure.verdicts import Cause, background_load, clock_drift, throttled
from tests.waiting import wait_until

Measured = TypeVar("Measured")
TRIES = 3
LOOK_S = 1.0
"""How often the machine is looked at meanwhile: what disturbed a part of a launch is not lost in the whole."""


def undisturbed(measure: Callable[[], Measured], claim: Callable[[Measured], None], tries: int = TRIES) -> Measured:
    """What ``measure`` gave, once ``claim`` holds it to be so.

    ``claim`` asserts what depends on time and nothing else: what ``measure`` asserts fails the test however busy the
    machine is. ``measure`` is called again, so it writes its files again.
    """
    cause: Cause | None = None
    for _ in range(tries):
        with Watch() as watch:
            measured = measure()
        try:
            claim(measured)
        except AssertionError:
            cause = watch.cause()
            if cause is None:
                raise
        else:
            return measured
    assert cause
    pytest.skip(f"each of {tries} measurements was disturbed; the last: {cause.words}")


def counted_undisturbed(count: Callable[[], float], expected: float, times: int = 4) -> None:
    """Holds a count to within 0.01 of what is expected, where what others do may be counted too, at any load."""

    def counts() -> list[float]:
        counted: list[float] = []
        while len(counted) < times and not (counted and abs(counted[-1] - expected) <= 0.01):
            counted.append(count())
        return counted

    def claim(counted: list[float]) -> None:
        assert abs(counted[-1] - expected) <= 0.01, f"{expected} expected, each time counted: {counted}"

    undisturbed(counts, claim)


def gone_within(seconds: float, condition: Callable[[], bool], at_most: float = 60.0) -> float:
    """Waits for ``condition``, at most ``at_most`` seconds; the seconds that it took.

    It must hold within ``seconds``, unless something disturbed the machine meanwhile.
    """
    began = time.monotonic()
    with Watch() as watch:
        assert wait_until(condition, at_most), f"it takes more than {at_most:g} s"
        took_s = time.monotonic() - began
    assert took_s <= seconds or watch.cause(), f"it took {took_s:.1f} s; at most {seconds:g} s are expected"
    return took_s


@dataclass(frozen=True)
class Look:
    """The machine at one moment, since boot."""

    machine: MachineCounters
    others_s: float
    """CPU seconds of all processes that do not descend from this one, with those of their children that have ended."""

    @classmethod
    def now(cls) -> Look:
        machine = read_machine()
        mine = ours(machine.processes, os.getpid())
        return cls(machine, sum(map(seconds, machine.processes.keys() - mine)))


class Watch:
    """Looks at the machine again and again while a measurement runs."""

    def __enter__(self) -> Watch:
        self._looks = [Look.now()]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._looks.append(Look.now())

    def cause(self) -> Cause | None:
        """What disturbed the machine most, in any part of the measurement or in the whole; None for nothing."""
        parts = [*zip(self._looks, self._looks[1:], strict=False), (self._looks[0], self._looks[-1])]
        causes = [cause for cause in (disturbance(before, after) for before, after in parts) if cause]
        return max(causes, key=lambda cause: cause.size, default=None)

    def _keep_looking(self) -> None:
        while not self._over.wait(LOOK_S):
            self._looks.append(Look.now())


def disturbance(before: Look, after: Look) -> Cause | None:
    """As a sweep judges it of measured steps, but for what others took: ranks have ended meanwhile, whose time is no
    one's any more. So the others are added up, not inferred from the difference."""
    seen, others = between(before.machine, after.machine, os.getpid())
    seen["background_cpu_s"] = after.others_s - before.others_s
    return background_load(seen, others) or throttled(seen) or clock_drift(seen)


def seconds(pid: int) -> float:
    """CPU seconds of a process and of its children that have ended; none of one that has ended itself."""
    with contextlib.suppress(OSError):
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS_PER_S
    return 0.0
