"""Locks that an interrupted compilation of DeepSpeed's operators leaves.

torch compiles an operator at its first use. It creates a file ``lock`` next to it and keeps it open meanwhile. Where
the file exists, other processes wait for its removal, without a limit. A launch that was ended while it compiled leaves
the file, and every later launch would wait until ``timeout_s``.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

LOCK = "lock"
GUARD = "ddp-zero-bench.lock"
"""Locked by one rank at a time, and by the kernel's means: none that ended holds it."""


def remove_stale_locks(hosts: int, root: Path | None = None) -> list[Path]:
    """Removes the locks of torch's compiled operators that no process has open, and returns them.

    ``root``: torch's own folder, or that of ``TORCH_EXTENSIONS_DIR``. It removes nothing without ``/proc``, and nothing
    in a launch on several ``hosts``: they may share the folder, and a process of another host is not in ``/proc``.
    """
    root = root or build_root()
    if hosts > 1 or not root.is_dir() or not Path("/proc/self/fd").is_dir():
        return []
    with (root / GUARD).open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        locks = [*root.glob(f"*/{LOCK}"), *root.glob(f"*/*/{LOCK}")]
        in_use = open_files() if locks else set()
        stale = [lock for lock in locks if str(lock.resolve()) not in in_use]
        for lock in stale:
            lock.unlink(missing_ok=True)
    return stale


def build_root() -> Path:
    from torch.utils.cpp_extension import get_default_build_root

    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())


def open_files() -> set[str]:
    """The files that processes have open, as far as this one may look."""
    names = set()
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            entries = list(os.scandir(folder))
        except OSError:  # another user's, or ended
            continue
        for entry in entries:
            try:
                names.add(os.readlink(entry.path))
            except OSError:  # closed meanwhile
                continue
    return names
