"""A folder for temporary files of a sweep; the next sweep removes those of killed sweeps."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "bench-scratch-"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder, locked as long as its sweep lives and gone after it."""
    remove_abandoned(Path(tempfile.gettempdir()))
    lock = None
    while lock is None:  # between its making and its locking, another sweep may take it for abandoned
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned(place: Path) -> None:
    """Removes the folders below ``place`` whose sweeps are gone, however they ended."""
    for folder in place.glob(f"{PREFIX}*"):
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """Holds the folder until the descriptor is closed; None if another process does, or the folder is gone."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.exists():
            return lock
    except OSError:
        pass
    os.close(lock)
    return None
