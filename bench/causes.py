"""Causes of a failure in words: errors of the operating system with path and limit, and failed communication."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

from bench.measure.machine import limits

MIB = 1 << 20


def system_error(error: BaseException) -> OSError | None:
    """The error of the system that ``error`` is, or was raised for."""
    if isinstance(error, OSError) and error.errno in LIMITS:
        return error
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError) and at.errno in QUOTED:
            return at
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return None


def in_words(error: OSError) -> str:
    """Such as ``No space left on device (ENOSPC): /tmp/x; 0 of 64 MiB are free``."""
    number = error.errno or 0
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    name = errno.errorcode.get(number, "")
    words = f"{error.strerror or os.strerror(number)} ({name})" + (f": {path}" if path else "")
    return _with_limit(words, number, path)


def in_text(text: str) -> str:
    """The limit behind a system error that ``text`` quotes, as C++ libraries and the shell do; empty if it has none."""
    for number in QUOTED:
        if os.strerror(number).lower() in text.lower():
            return _with_limit(f"{os.strerror(number)} ({errno.errorcode[number]})", number, "")
    return ""


LOST_PEER = ("connection closed", "connection reset", "peer", "one of the ranks", "remote process")
"""What gloo and NCCL write in lower case where another rank is gone; their errors have no type of their own."""
OUT_OF_STEP = ("signal", "gloo", "NCCL", "Connection")


def is_lost_peer(text: str) -> bool:
    """Whether an error's message says that another rank ended first."""
    return any(word in text.lower() for word in LOST_PEER)


def may_be_out_of_step(reason: str) -> bool:
    """Whether ranks that failed for this reason may have issued different collectives."""
    return any(word in reason for word in OUT_OF_STEP)


def _with_limit(words: str, number: int, path: str) -> str:
    limit = LIMITS[number](path) if number in LIMITS else ""
    return f"{words}; {limit}" if limit else words


def _room(path: str) -> str:
    """Of the file system that ``path`` is on, else of the folder of temporary files."""
    at = Path(path or os.environ.get("TMPDIR", "/tmp"))
    while not at.exists() and at != at.parent:
        at = at.parent
    with contextlib.suppress(OSError):
        usage, nodes = shutil.disk_usage(at), os.statvfs(at)
        if nodes.f_files and not nodes.f_favail:
            return f"no inode is free on the file system of {at}"
        return f"{usage.free / MIB:.1f} of {usage.total / MIB:.1f} MiB are free on the file system of {at}"
    return ""


def _open_files(_: str) -> str:
    return f"at most {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} open files per process (ulimit -n)"


def _open_files_of_all(_: str) -> str:
    with contextlib.suppress(OSError):
        return f"at most {Path('/proc/sys/fs/file-max').read_text().strip()} open files on this machine (fs.file-max)"
    return ""


def _processes(_: str) -> str:
    bounds = []
    if most := limits.read().by_name.get("pids.max"):
        bounds.append(f"at most {most} processes and threads in the control group (pids.max)")
    of_user = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if of_user != resource.RLIM_INFINITY:
        running = f"{_running()} run, and one more was to start"
        bounds.append(f"at most {of_user} processes and threads per user (ulimit -u): {running}")
    return "; ".join(bounds)


def _running() -> int:
    """Processes and threads of this process's user."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid == os.getuid():
                count += len(os.listdir(process / "task"))
    return count


def _memory(_: str) -> str:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return "" if limit == resource.RLIM_INFINITY else f"at most {limit / MIB:.4g} MiB per process (ulimit -v)"


def _file_size(_: str) -> str:
    return f"at most {resource.getrlimit(resource.RLIMIT_FSIZE)[0] / MIB:.3g} MiB per file (ulimit -f)"


def _nothing(_: str) -> str:
    return ""


LIMITS: dict[int, Callable[[str], str]] = {
    errno.ENOSPC: _room,
    errno.EDQUOT: _room,
    errno.EMFILE: _open_files,
    errno.ENFILE: _open_files_of_all,
    errno.EAGAIN: _processes,
    errno.ENOMEM: _memory,
    errno.EFBIG: _file_size,
    errno.EROFS: _nothing,
    errno.EACCES: _nothing,
    errno.EPERM: _nothing,
    errno.EIO: _nothing,
    errno.ENOENT: _nothing,
    errno.EBADF: _nothing,
}
"""By error: the limit that was reached, given the path."""
QUOTED = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.EFBIG, errno.EROFS)
"""Errors whose words in a library's output name the cause."""
