"""Where ``compile=true`` keeps compiled code: a folder that no other user can write to.

torch's default is a folder with a guessable name below the temporary folder. It is used as it is, even if another user
made it, and ranks run the code that they find there.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import stat
import tempfile
from pathlib import Path

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@functools.cache
def compile_cache() -> str:
    """A folder of this user alone (mode 0700): in the user's cache, else a temporary one that ends with the process."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base, "ddp-zero-bench", "torchinductor")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_private(folder):
            return str(folder)
    except OSError:
        pass  # no home, or one that cannot be written
    temporary = tempfile.mkdtemp(prefix="bench-compile-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return temporary


def is_private(folder: Path) -> bool:
    """Whether the folder is a real one of this user's, and no other user can write to it."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
