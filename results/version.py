"""The suite's version, as ``--version`` prints it."""

from __future__ import annotations

import importlib.metadata
import platform

from results.source import Source

DISTRIBUTION = "ddp-zero-bench"


def version_line(source: Source | None = None) -> str:
    """Version, commit, torch and Python in one line, such as ``ddp-zero-bench 0.1.0, torch 2.11.0, Python 3.11.9``.

    torch is not imported. ``source`` adds the commit, or the digest of the files.
    """
    parts = [f"{DISTRIBUTION} {_version_of(DISTRIBUTION) or '(not installed)'}"]
    if source is not None:
        parts.append(source.described())
    if torch := _version_of("torch"):
        parts.append(f"torch {torch}")
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def _version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
