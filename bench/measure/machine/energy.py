"""Joules of the processor, from the counters of its packages (RAPL); a GPU's come from ``bench.measure.machine.nvml``.

A package's counter holds everything that runs on it, other processes included, and wraps at a range of its own.
"""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


def packages() -> list[Path]:
    """The counters that this process may read: one a package, without the domains inside it."""
    found = [place for place in sorted(POWERCAP.glob("intel-rapl:*")) if place.name.count(":") == 1]
    return [place for place in found if readable(place)]


def readable(place: Path) -> bool:
    try:
        microjoules(place)
    except (OSError, ValueError):
        return False
    return True


def microjoules(place: Path, counter: str = "energy_uj") -> int:
    return int((place / counter).read_text())


def why_not() -> str:
    """Why the processor's energy is not known; empty if it is."""
    if packages():
        return ""
    if any(POWERCAP.glob("intel-rapl:*")):
        return f"the counters in {POWERCAP} may be read by root only"
    return f"this machine shows no counter in {POWERCAP}"


class Meter:
    """Joules that all packages used since it was made."""

    def __init__(self) -> None:
        self._before = {place: microjoules(place) for place in packages()}

    def joules(self) -> float | None:
        """None where no package can be read."""
        if not self._before:
            return None
        total = 0
        for place, before in self._before.items():
            used = microjoules(place) - before
            total += used if used >= 0 else used + microjoules(place, "max_energy_range_uj")
        return total / 1e6
