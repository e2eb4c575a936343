"""Status and reason of a launch, from the endings of its ranks."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from pathlib import Path
from typing import Any

from bench import causes
from bench.job import Job, LaunchResult
from bench.launch.forkserver.rank_handle import Rank
from bench.measure.machine import limits
from results.shown import printable

NAMES_CAUSE = -1
"""``cause_order`` of a rank that ended with a system error: a limit that not all ranks can report."""
STOPPED = 4
"""``cause_order`` of a rank that the launcher stopped."""


def outcome(job: Job[Any], ranks: list[Rank], timed_out: bool, oom_kills: int, failed_starts: int) -> LaunchResult[Any]:
    """The result of a launch whose ranks have all ended, in JSON types.

    ``oom_kills`` and ``failed_starts``: ``oom_kill_count()`` and ``failed_start_count()`` before it.
    """
    answers: list[Any] = [rank.answer() for rank in ranks]
    if not timed_out and all("error" not in answer and answer for answer in answers):
        count = sum(rank.rank < job.world_size for rank in ranks)  # servers follow all ranks
        return LaunchResult("ok", ranks=answers[:count], servers=answers[count:])
    ends = [rank.end() for rank in ranks]
    if timed_out:
        stuck = any(rank.stuck for rank in ranks)
        return LaunchResult("timeout", who_hangs(ranks, job.timeout_s), ends=ends, cause_order=0 if stuck else STOPPED)
    cause = min(ranks, key=cause_order)
    error = cause.answer().get("error", {})
    killed = cause.wait_status is not None and os.WIFSIGNALED(cause.wait_status)
    status = error.get("status", "failed")
    reason = f"rank {cause.rank}: {cause.ending()}"
    if killed and oom_kill_count() > oom_kills:
        status, reason = "oom", f"{reason}; the kernel's out-of-memory killer was at work"
    if killed and failed_start_count() > failed_starts:
        reason = f"{reason}; processes or threads could not be started: {causes.LIMITS[errno.EAGAIN]('')}"
    if not error and os.strerror(errno.ENOMEM) in cause.quoted:
        status = "oom"
    if status in ("unsupported", "unavailable"):
        reason = printable(error["message"])
    by_chance = killed and status == "failed" and cause.wait_status == signal.SIGKILL
    return LaunchResult(status, reason, ends=ends, by_chance=by_chance, cause_order=cause_order(cause)[0])


def who_hangs(ranks: list[Rank], timeout_s: float) -> str:
    """Names the ranks that cannot go on by themselves, for which the others wait; else all that still ran."""
    running = [rank for rank in ranks if rank.stopped_by_us]
    stuck = [f"rank {rank.rank} was {rank.stuck}" for rank in running if rank.stuck]
    if stuck:
        return f"{', '.join(stuck)} after timeout_s={timeout_s:g}"
    return f"rank {', '.join(str(rank.rank) for rank in running)} still running after timeout_s={timeout_s:g}"


def cause_order(rank: Rank) -> tuple[int, int]:
    """Orders ended ranks by how likely each is the cause: a lost peer makes the others raise, not die."""
    if rank.stopped_by_us:
        return (STOPPED, rank.rank)
    assert rank.wait_status is not None
    error = rank.answer().get("error")
    if causes.in_text(error["message"]) if error else rank.failed and rank.quoted:
        return (NAMES_CAUSE, rank.rank)
    if os.WIFSIGNALED(rank.wait_status):
        return (0, rank.rank)
    if error is None:
        return (1 if rank.failed else 5, rank.rank)
    return (3 if causes.is_lost_peer(error["message"]) else 2, rank.rank)


def failed_start_count() -> int:
    """Processes and threads that ``pids.max`` of our control groups has refused; 0 if none says."""
    count = 0
    with contextlib.suppress(OSError):
        for group in limits.groups("pids"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                events = (group / "pids.events").read_text().split()
                count += int(events[events.index("max") + 1])
    return count


def oom_kill_count() -> int:
    """Processes that the kernel killed for want of memory, of our control groups or the machine; 0 if none says."""
    counts = []
    groups = []
    with contextlib.suppress(OSError):  # the machine's own count is left
        groups = limits.groups("memory")
    for group in groups:
        for name in ("memory.events", "memory.oom_control"):  # of version 2, and 1
            with contextlib.suppress(OSError):
                counts += oom_kills((group / name).read_text())
    if not counts:
        with contextlib.suppress(OSError):
            counts = oom_kills(Path("/proc/vmstat").read_text())
    return sum(counts)


def oom_kills(text: str) -> list[int]:
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")]
