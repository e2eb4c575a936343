"""The code that runs: commit, uncommitted changes, and digests by which two records are told to be of the same code."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.measure.environment import output
from bench.record import Record, Source

ROOT = Path(__file__).resolve().parents[2]
MEASURES = ("bench", "conf", "workloads", "hydra_plugins")
"""Folders whose files decide what is measured; a changed report or document is no other code."""
SUFFIXES = (".py", ".yaml")

MOST_PATCH_BYTES = 128 * 1024
MOST_UNTRACKED = 50
PLAIN = ("--binary", "--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/")
"""A diff that git apply takes, however a person has set git to show one."""
PRIVATE = ("tracking", "hydra.", "reproduce")
"""Overrides that say nothing of the cells, and may hold a password or a path."""


def collect(arguments: Sequence[str], root: Path = ROOT) -> Source:
    """The source below ``root``, and the overrides among the command's arguments. Needs no torch."""
    files = sorted(path for folder in MEASURES for path in (root / folder).rglob("*") if path.suffix in SUFFIXES)
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.relative_to(root).as_posix()}\0{digest(path)}\n".encode())
    command = [word for word in arguments if not word.lstrip("+~").startswith(PRIVATE)]
    lock = root / "uv.lock"
    source = Source(total.hexdigest(), digest(lock) if lock.is_file() else "", command=command)
    commit = git(root, "rev-parse", "HEAD").strip() if (root / ".git").exists() else ""
    if not commit:
        return source
    patch = git(root, "diff", *PLAIN, "HEAD")
    listed = git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *MEASURES)
    untracked = sorted(filter(None, listed.split("\0")))
    return Source(
        source.digest,
        source.lock_digest,
        commit,
        cut(patch, MOST_PATCH_BYTES),
        len(patch.encode()),
        {name: digest(root / name) for name in untracked[:MOST_UNTRACKED]},
        max(0, len(untracked) - MOST_UNTRACKED),
        command,
    )


RUNS_WITH = ("python", "packages", "cuda", "cudnn", "nccl", "variables")
"""Entries of the environment that are as good as other code."""


def differences(before: Record, source: Source, environment: dict[str, Any]) -> str:
    """What sets a record's code, and what it ran with, apart from the present; empty if nothing does."""
    found = []
    if before.source is None or before.source.digest != source.digest:
        code = before.source.described() if before.source else "code that was not recorded"
        found.append(f"{code} then, {source.described()} now")
    for name in RUNS_WITH:
        then, now = before.environment.get(name), environment.get(name)
        if isinstance(then, dict) and isinstance(now, dict):
            keys = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
            found += [f"{key}: {then.get(key)} then, {now.get(key)} now" for key in keys]
        elif then != now:
            found.append(f"{name}: {then} then, {now} now")
    return "; ".join(found)


def cut(text: str, most_bytes: int) -> str:
    """The first whole lines that fit."""
    data = text.encode()
    if len(data) <= most_bytes:
        return text
    return data[: data.rfind(b"\n", 0, most_bytes) + 1].decode()


def digest(path: Path) -> str:
    """SHA-256 of a file; empty if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def git(root: Path, *arguments: str) -> str:
    """What git prints; empty where it is missing or fails."""
    return output(["git", "-C", str(root), *arguments])
