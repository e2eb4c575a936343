"""Storage of records: one file per cell in the sweep's folder, with a rescue folder if that one fails."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import itertools
import os
import re
import shutil
import stat
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from results.atomic import PARTIAL
from results.record import Record, RecordError
from results.traces import FOLDER as TRACES

DATED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")
"""What ``dated`` makes."""

RESCUED = "bench-rescued-"
"""Begins the name of a rescue folder, in the system's folder for temporary files."""

OF_SWEEP = "of_sweep.txt"
"""In a rescue folder: which sweep's folder could not be written."""


class FolderBusy(Exception):
    """Another sweep writes into the folder."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder is this block's alone, where the file system has locks. Raises FolderBusy if it is another's."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderBusy(f"another sweep is writing into {folder}") from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(lock)


class StoreError(OSError):
    """Neither the folder nor another can be written."""


def sweep_name(folder: Path) -> str:
    """The name of a new sweep in its records and in MLflow: that of its folder, or the time.

    The default name of a folder is the time. One that a person named, or the nightly job, may be called as
    yesterday's was, which is another sweep.
    """
    name = folder.resolve().name
    return name if DATED.search(name) else f"{dated()}_{name}"


def dated() -> str:
    """The time now, as the default name of a folder, such as ``2026-03-04_02-00-00``."""
    return f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}"


def new_dated(parent: Path, prefix: str = "") -> Path:
    """Makes a folder in ``parent`` that is called after the time now, with a number where that name is taken.

    The name may be that of a sweep of the same second, or of one from before the clock was set back.
    """
    parent.mkdir(parents=True, exist_ok=True)
    name = f"{prefix}{dated()}"
    for number in itertools.count(1):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError


class RecordStore:
    """Writes records to ``folder/records``; if that fails, to a rescue folder, so that nothing measured is lost.

    The folder is the store's until it is closed, or the process ends. Raises FolderBusy if it is another's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        self._rescue: Path | None = None
        (folder / "records").mkdir(parents=True, exist_ok=True)
        lock = contextlib.ExitStack()
        lock.enter_context(locked(folder))
        self.close = weakref.finalize(self, lock.close)
        for place in (folder, folder / "records", folder / "figures", folder / TRACES):
            for part in place.glob(PARTIAL):  # of a sweep that was killed while it wrote
                part.unlink(missing_ok=True)

    @property
    def rescued(self) -> bool:
        """Whether records go elsewhere than they were meant to."""
        return self._rescue is not None

    def write(self, record: Record) -> None:
        """Replaces the cell's record. Raises StoreError only if the rescue folder fails too."""
        name = f"{record.cell_id}.json"
        try:
            record.write(self.folder / "records" / name)
        except OSError as error:
            if self.rescued:
                raise StoreError(f"{self.folder} cannot be written either ({error})") from error
            rescue = self._write_elsewhere(record, name, error)
            self.warnings.append(f"{self.folder} cannot be written ({error}); records go to {rescue}")
            self._rescue = self.folder = rescue

    def _write_elsewhere(self, record: Record, name: str, why: OSError) -> Path:
        """Writes the record to a new folder; where that fails nothing of it is left."""
        rescue = None
        try:
            rescue = Path(tempfile.mkdtemp(prefix=RESCUED))
            (rescue / "records").mkdir()
            (rescue / OF_SWEEP).write_text(f"{self.folder.resolve()}\n", encoding="utf-8")
            record.write(rescue / "records" / name)
        except OSError as error:
            if rescue:
                shutil.rmtree(rescue, ignore_errors=True)
            elsewhere = tempfile.gettempdir()
            raise StoreError(f"{self.folder} cannot be written ({why}), nor {elsewhere} ({error})") from error
        return rescue

    def set_aside(self, record: Record) -> None:
        """Keeps what was measured of a cell that is to start again, under a name that no reader takes for a record."""
        path = self.folder / "records" / f"{record.cell_id}.json"
        number = 1
        while (aside := path.with_name(f"{path.name}.superseded-{number}")).exists():
            number += 1
        path.rename(aside)

    def take_back(self) -> None:
        """Moves here what a run in this folder wrote to a rescue folder. A record that holds more launches stays, and
        so does what cannot be read there.

        Raises OSError where this folder still cannot be written; the rescue folder is then as it was.
        """
        for rescue in rescue_folders(self.folder):
            taken, unreadable = 0, ""
            for path in sorted((rescue / "records").glob("*.json")):
                try:
                    rescued = Record.read(path)
                except RecordError as error:
                    unreadable = unreadable or str(error)
                    continue
                here = self.folder / "records" / path.name
                if not here.exists() or not _holds_more(here, rescued):
                    rescued.write(here)
                path.unlink()
                taken += 1
            left = f"which is kept: {unreadable}" if unreadable else "which is removed"
            self.warnings.append(f"resume: {taken} record(s) taken back from {rescue}, {left}")
            if not unreadable:
                shutil.rmtree(rescue, ignore_errors=True)

    def existing(self, check: Callable[[Record], None] = lambda record: None) -> dict[str, Record]:
        """Records of an earlier run in this folder, by cell.

        One that cannot be read, or that ``check`` rejects (RecordError), is set aside with a warning.
        """
        records = {}
        for path in sorted((self.folder / "records").glob("*.json")):
            try:
                record = Record.read(path)
                check(record)
            except RecordError as error:
                aside = path.with_name(f"{path.name}.unreadable")
                with contextlib.suppress(OSError):
                    path.rename(aside)
                reason = str(error).removeprefix(f"{path}: ")
                self.warnings.append(f"{path}: {reason}; kept as {aside.name}, its configuration is run again")
                continue
            records[record.cell_id] = record
        return records


def rescue_folders(folder: Path) -> list[Path]:
    """This user's rescue folders of the sweep in ``folder``, the oldest first."""
    mine = []
    for mark in Path(tempfile.gettempdir()).glob(f"{RESCUED}*/{OF_SWEEP}"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            place = mark.parent.lstat()
            is_mine = stat.S_ISDIR(place.st_mode) and place.st_uid == os.geteuid() and not mark.is_symlink()
            if is_mine and mark.read_text(encoding="utf-8").rstrip("\n") == str(folder.resolve()):
                mine.append((place.st_mtime_ns, mark.parent))
    return [path for _, path in sorted(mine)]


def _holds_more(path: Path, rescued: Record) -> bool:
    """Whether the record in a file holds more launches than the rescued one."""
    try:
        return len(Record.read(path).launches) > len(rescued.launches)
    except RecordError:
        return False
