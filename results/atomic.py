"""Files that are replaced as a whole: a reader, or whoever comes after a crash, sees the old one or the new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".*.partial"
"""The names of files that are being written; of a process that was killed they stay."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file next to ``path``, to be written within the block; it replaces ``path`` if the block raises nothing.

    Else, be it for an error or for Ctrl-C, it is removed and ``path`` is as it was. Raises OSError.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Writes text as UTF-8 in the place of what ``path`` was. Raises OSError."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
