"""What /proc says of one process or thread."""

from __future__ import annotations

from pathlib import Path


def fields(place: Path) -> list[str]:
    """Of ``stat`` in ``/proc/PID`` or ``/proc/PID/task/TID``, from the state on; empty once it has ended."""
    try:
        return (place / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def is_stopped(pid: int) -> bool:
    """Whether a signal such as SIGSTOP, or a debugger, has stopped the process."""
    return fields(Path("/proc", str(pid)))[:1] in (["T"], ["t"])
