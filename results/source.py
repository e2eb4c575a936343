"""The code that measured: enough to have it again, and to determine whether two records are of the same."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Source:
    """The code that ran: digests of its files, commit and patch."""

    digest: str
    """SHA-256 over the names and contents of the files that measure (``bench.measure.machine.source.MEASURES``)."""
    lock_digest: str = ""
    """SHA-256 of uv.lock; empty where there is none."""
    commit: str = ""
    """Of the checkout; empty outside one, as are the next three."""
    patch: str = ""
    """``git diff --binary`` from the commit to the files that ran, of all that git tracks."""
    patch_bytes: int = 0
    """Length of the whole patch; ``patch`` is cut where it is less."""
    untracked: dict[str, str] = field(default_factory=dict)
    """SHA-256 of files that git does not track, by path, where they lie among those that measure."""
    untracked_more: int = 0
    """Such files beyond those that are named."""
    command: list[str] = field(default_factory=list)
    """Overrides of the sweep, without those that name folders or trackers."""
    not_recorded: str = ""
    """Why commit, patch or a file's digest are missing or not whole in a checkout; empty otherwise."""

    @property
    def patch_cut(self) -> bool:
        return len(self.patch.encode()) < self.patch_bytes

    @property
    def dirty(self) -> bool:
        """Whether it is more than the commit."""
        return bool(self.patch or self.untracked)

    def described(self) -> str:
        """Such as ``commit f32bc1025d with changes``."""
        if not self.commit:
            return f"files {self.digest[:10]}, no commit"
        return f"commit {self.commit[:10]}{' with changes' if self.dirty else ''}"
