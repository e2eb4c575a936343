"""Joules of the processor, from the counters of its packages (RAPL); a GPU's come from ``bench.measure.machine.nvml``.

A package's counter holds everything that runs on it, other processes included, and wraps at a range of its own.
"""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


def packages() -> list[Path]:
    """The counters: one per package, without the domains inside it."""
    return [place for place in sorted(POWERCAP.glob("intel-rapl:*")) if place.name.count(":") == 1]


def microjoules(place: Path, counter: str = "energy_uj") -> int:
    return int((place / counter).read_text())


def why_not() -> str:
    """Why the processor's energy is not known; empty if it is."""
    meter = Meter()
    return meter.error if meter.counts or meter.error else f"this machine shows no counter in {POWERCAP}"


class Meter:
    """Joules that all packages used since it was made; a counter that cannot be read leaves no sum of the others."""

    def __init__(self) -> None:
        self.error = ""
        """Why a counter could not be read; empty if all could."""
        self._before = self._read("energy_uj")

    @property
    def counts(self) -> bool:
        """Whether there is a counter, and all can be read."""
        return bool(self._before) and not self.error

    def joules(self) -> float | None:
        """None without a counter, and where one cannot be read."""
        now, ranges = self._read("energy_uj"), self._read("max_energy_range_uj") if self.counts else {}
        if not self.counts:
            return None
        used = {place: now[place] - before for place, before in self._before.items()}
        return sum(size if size >= 0 else size + ranges[place] for place, size in used.items()) / 1e6

    def _read(self, counter: str) -> dict[Path, int]:
        values = {}
        for place in packages():
            try:
                values[place] = microjoules(place, counter)
            except PermissionError:
                self.error = f"the counters in {POWERCAP} may be read by root only"
            except (OSError, ValueError) as error:
                self.error = f"{place.name}/{counter}: {getattr(error, 'strerror', None) or error}"
        return values
