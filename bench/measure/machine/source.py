"""The code that runs: commit, uncommitted changes, and digests that identify equal code."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.measure.machine.command import CommandOutput, output
from results.source import Source

ROOT = Path(__file__).resolve().parents[3]

MEASURES = ("bench", "conf", "workloads", "hydra_plugins")
"""Folders whose files decide what is measured; a changed report or document is no other code."""
RECORDS = "results/*.py"
"""The record's format decides it too; what lies below ``results`` is data."""

SUFFIXES = (".py", ".yaml")

MOST_PATCH_BYTES = 128 * 1024

MOST_UNTRACKED = 50

PLAIN = ("--binary", "--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/")
"""A diff that git apply takes, however a person has set git to show one."""

PRIVATE = ("tracking", "hydra.", "reproduce")
"""Overrides that say nothing of the cells, and may hold a password or a path."""


def collect(arguments: Sequence[str], root: Path = ROOT) -> Source:
    """The source below ``root``, and the overrides among the command's arguments. Needs no torch."""
    unread: list[str] = []
    files = sorted(path for folder in MEASURES for path in (root / folder).rglob("*") if path.suffix in SUFFIXES)
    total = hashlib.sha256()
    for path in [*files, *sorted(root.glob(RECORDS))]:
        total.update(f"{path.relative_to(root).as_posix()}\0{digest(path, unread)}\n".encode())
    command = [word for word in arguments if not word.lstrip("+~").startswith(PRIVATE)]
    lock = root / "uv.lock"
    source = Source(total.hexdigest(), digest(lock, unread) if lock.is_file() else "", command=command)
    if (root / ".git").exists():
        source = with_commit(source, root, unread)
    return replace(source, not_recorded="; ".join(unread))


def with_commit(source: Source, root: Path, unread: list[str]) -> Source:
    """``source`` with the commit of its checkout and what differs from it. ``unread`` gets what git refuses."""

    def ask(*arguments: str) -> str:
        answer = git(root, *arguments)
        if answer.error and answer.error not in unread:
            unread.append(answer.error)
        return answer.text

    commit = ask("rev-parse", "HEAD").strip()
    if not commit:
        return source
    patch = ask("diff", *PLAIN, "HEAD")
    untracked = sorted(
        filter(
            None,
            ask("ls-files", "--others", "--exclude-standard", "-z", "--", *MEASURES, f":(glob){RECORDS}").split("\0"),
        )
    )
    return replace(
        source,
        commit=commit,
        patch=cut(patch, MOST_PATCH_BYTES),
        patch_bytes=len(patch.encode()),
        untracked={name: digest(root / name, unread) for name in untracked[:MOST_UNTRACKED]},
        untracked_more=max(0, len(untracked) - MOST_UNTRACKED),
    )


def cut(text: str, most_bytes: int) -> str:
    """The first whole lines that fit."""
    data = text.encode()
    if len(data) <= most_bytes:
        return text
    return data[: data.rfind(b"\n", 0, most_bytes) + 1].decode()


def digest(path: Path, unread: list[str]) -> str:
    """SHA-256 of a file. One that cannot be read has none, and its name and the reason are added to ``unread``."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        reason = f"{path.name}: {error.strerror}"
        if reason not in unread:
            unread.append(reason)
        return ""


def git(root: Path, *arguments: str) -> CommandOutput:
    """The output of git, or why there is none."""
    return output(["git", "-C", str(root), *arguments])
