"""Limits of the control groups of this process: CPUs, memory, processes.

Both versions are read, wherever they are mounted. A group's limits hold for the groups inside it, so the tightest of
this process's group and of those around it counts. Limits are given in the names and the form of version 2.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

OWN = Path("/proc/self")


@dataclass
class GroupLimits:
    """The limits, as version 2 writes them (``cpu.max``: microseconds of quota and period); else left out."""

    by_name: dict[str, str] = field(default_factory=dict)
    unreadable: str = ""
    """The first file with a limit that could not be read, and why; empty if none."""

    @property
    def cpus(self) -> float | None:
        """CPUs that the quota is worth; None where there is none."""
        quota, _, period = self.by_name.get("cpu.max", "").partition(" ")
        return int(quota) / int(period) if quota else None


def usable_cores(own: Path = OWN) -> float:
    """CPUs that this process may use: its affinity, bounded by the quota. A whole number unless the quota is none."""
    cores = min(float(len(os.sched_getaffinity(0))), read(own).cpus or float("inf"))
    return int(cores) if cores == int(cores) else round(cores, 2)


def cores_without_affinity() -> int:
    """CPUs that this thread could use if nothing had narrowed its affinity; the kernel keeps those of its cpuset."""
    own = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        return len(os.sched_getaffinity(0))
    except OSError:
        return len(own)
    finally:
        os.sched_setaffinity(0, own)


def read(own: Path = OWN) -> GroupLimits:
    """The tightest limits of the groups that hold this process. psutil does not read control groups."""
    limits = GroupLimits()
    for name, controller, value_of, size in LIMITS:
        values = []
        try:
            places = groups(controller, own)
        except OSError as error:
            limits.unreadable = str(error)
            return limits
        for place in places:
            try:
                value = value_of(place)
            except FileNotFoundError:
                continue  # the outermost group, or the other version: it has no such file
            except (OSError, ValueError) as error:
                limits.unreadable = limits.unreadable or f"{name} of {place}: {error}"
                continue
            if value:
                values.append(value)
        if values:
            limits.by_name[name] = min(values, key=size)
    return limits


def groups(controller: str, own: Path = OWN) -> list[Path]:
    """Folders of the groups that hold this process and may bound what ``controller`` does, the innermost first.

    Raises OSError where the kernel has control groups and does not show them.
    """
    try:
        memberships, mounts = (own / "cgroup").read_text(), (own / "mountinfo").read_text()
    except FileNotFoundError:
        return []  # a kernel without control groups, or a /proc that is not mounted
    folders = []
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for root, top in hierarchies(mounts, controller if controllers else ""):
            folders += upwards(top, path, root)
    return folders


def hierarchies(mounts: str, controller: str) -> list[tuple[str, Path]]:
    """Root and place of each mount of a hierarchy, from the text of mountinfo; version 2's for no controller."""
    roots = []
    for line in mounts.splitlines():
        mount, _, source = line.partition(" - ")
        fields, (kind, _, options) = mount.split(), source.split(" ", 2)
        if kind == ("cgroup" if controller else "cgroup2") and (not controller or controller in options.split(",")):
            roots.append((unescaped(fields[3]), Path(unescaped(fields[4]))))
    return roots


def unescaped(path: str) -> str:
    """A path of mountinfo, where blanks and the like are octal."""
    return path.encode().decode("unicode_escape") if "\\" in path else path


def upwards(top: Path, path: str, root: str) -> list[Path]:
    """From a group to the mount that shows it. A container may show its own group alone, as ``top``."""
    inside = path.removeprefix(root.rstrip("/")) if path == root or path.startswith(root.rstrip("/") + "/") else ""
    place = top / inside.strip("/") if ".." not in inside.split("/") else top
    folders = [place]
    while place != top:
        place = place.parent
        folders.append(place)
    return folders


def cpu_max(place: Path) -> str:
    """Quota and period in microseconds; empty without a quota."""
    try:
        quota, period = (place / "cpu.max").read_text().split()
    except FileNotFoundError:
        quota, period = (_text(place / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return "" if quota in ("max", "-1") else f"{int(quota)} {int(period)}"


def number(name: str, name_in_version_1: str) -> Callable[[Path], str]:
    """A limit that is a number; version 1 writes one near 2^63 for none."""

    def of(place: Path) -> str:
        try:
            text = _text(place / name)
        except FileNotFoundError:
            text = _text(place / name_in_version_1)
        return "" if text in ("max", "-1") or int(text) >= 1 << 62 else text

    return of


def cpus(place: Path) -> str:
    return _text(place / "cpuset.cpus")


def _text(place: Path) -> str:
    return place.read_text().strip()


def count(cpu_list: str) -> int:
    """How many CPUs a list such as ``0-3,8`` names."""
    ends = [part.split("-") for part in cpu_list.split(",")]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def share(cpu_max: str) -> float:
    quota, period = cpu_max.split()
    return int(quota) / int(period)


LIMITS: tuple[tuple[str, str, Callable[[Path], str], Callable[[str], float]], ...] = (
    ("cpu.max", "cpu", cpu_max, share),
    ("cpuset.cpus", "cpuset", cpus, count),
    ("memory.max", "memory", number("memory.max", "memory.limit_in_bytes"), int),
    ("memory.high", "memory", number("memory.high", "memory.soft_limit_in_bytes"), int),
    ("pids.max", "pids", number("pids.max", "pids.max"), int),
)
"""By name: the controller, how a group's limit is read, and the size by which the tightest is chosen."""
