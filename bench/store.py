"""Where records are kept: one file a cell in the sweep's folder, and a way out when that folder fails."""

from __future__ import annotations

import fcntl
import os
import tempfile
import weakref
from pathlib import Path

from bench.record import Record, RecordError


class FolderBusy(Exception):
    """Another sweep writes into the folder."""


class RecordStore:
    """Writes records to ``folder/records``; if that fails, to a rescue folder, so that nothing measured is lost.

    The folder is this process's until it ends, however it ends. Raises FolderBusy if it is another's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        self._rescue: Path | None = None
        (folder / "records").mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
        weakref.finalize(self, os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderBusy(f"another sweep is writing into {folder}") from error
        except OSError:
            pass  # a file system without locks

    def write(self, record: Record) -> None:
        """Replaces the cell's record. Raises OSError only if the rescue folder fails too."""
        if self._rescue is None:
            try:
                record.write(self.folder / "records" / f"{record.cell_id}.json")
                return
            except OSError as error:
                self._rescue = Path(tempfile.mkdtemp(prefix="bench-rescued-"))
                self.warnings.append(f"{self.folder} cannot be written ({error}); records go to {self._rescue}")
                self.folder = self._rescue
                (self.folder / "records").mkdir()
        record.write(self.folder / "records" / f"{record.cell_id}.json")

    def existing(self) -> dict[str, Record]:
        """Records of an earlier run in this folder, by cell; an unreadable one is set aside, with a warning."""
        found = {}
        for path in sorted((self.folder / "records").glob("*.json")):
            try:
                record = Record.read(path)
            except RecordError as error:
                aside = path.with_name(f"{path.name}.unreadable")
                path.rename(aside)
                self.warnings.append(f"{error}; kept as {aside.name}")
                continue
            found[record.cell_id] = record
        return found
