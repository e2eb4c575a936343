"""Finds and reads records: files, sweep folders, or folders with sweep folders below."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from results.record import Record, RecordError
from results.validate import check

MAX_DEPTH = 3
"""How far below a path its sweeps may lie: results/runs/nightly/NIGHT/sweep is three below results/runs."""
MAX_FOLDERS = 2000
"""Folders that a search for sweeps looks into."""


class NoRecords(ValueError):
    """There are no records; the message names the places that were searched."""


@dataclass
class Loaded:
    """Records that could be read, and one line for each file that could not."""

    records: list[Record] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def load(paths: Iterable[Path]) -> Loaded:
    """Reads all records below ``paths``: record files, sweep folders, or folders with sweep folders below.

    A file that is not a usable record becomes a warning, and so does a copy of one that was read. Raises NoRecords if
    no record is left.
    """
    places = list(paths)
    contents = Loaded()
    read: dict[tuple[str, str], list[Record]] = {}
    for path in dict.fromkeys(real(file) for place in places for file in record_files(place)):
        try:
            record = Record.read(path)
            check(record)
        except RecordError as error:
            reason = " ".join(str(error).removeprefix(f"{path}:").split())
            contents.warnings.append(f"{path}: {reason}")
            continue
        alike = read.setdefault((record.sweep_id, record.cell_id), [])
        if record in alike:
            contents.warnings.append(f"{path}: a copy of a record that was read already")
            continue
        alike.append(record)
        contents.records.append(record)
    if not contents.records:
        unreadable = f"; {len(contents.warnings)} unreadable, first {contents.warnings[0]}" if contents.warnings else ""
        raise NoRecords(f"no records in {', '.join(map(str, places)) or 'nothing'}{unreadable}")
    return contents


def real(path: Path) -> Path:
    """The path without links; as it is where these lead in a circle."""
    return Path(os.path.realpath(path))


def record_files(place: Path) -> list[Path]:
    """Record files of a path: itself; of a sweep ``records/*.json``; of another folder its own, then its sweeps'.

    Sweeps may lie ``MAX_DEPTH`` folders below, such as a night's or a side's of ``bench.regress``, and come in the
    order of their paths. Raises NoRecords where the path cannot be read or holds too many folders to search.
    """
    try:
        is_file = not stat.S_ISDIR(place.stat().st_mode)
        if not is_file:
            os.scandir(place).close()  # a folder that cannot be listed is no empty one
    except OSError as error:
        why = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise NoRecords(f"{place} {why}") from error
    if is_file:
        return [place]
    of_sweep = sorted(place.glob("records/*.json"))
    if of_sweep:
        return of_sweep
    below = sorted(file for folder in _folders_below(place) for file in folder.glob("records/*.json"))
    return [*sorted(place.glob("*.json")), *below]


def is_sweep(place: Path) -> bool:
    """Whether a path is a sweep's folder, or its folder of records."""
    return place.is_dir() and ((place / "records").is_dir() or place.resolve().name == "records")


def _folders_below(place: Path) -> Iterator[Path]:
    """Folders that may be sweeps': at most ``MAX_DEPTH`` below, neither hidden nor links. Raises NoRecords."""
    level, searched = [place], 0
    for _ in range(MAX_DEPTH):
        level = [folder for parent in level for folder in _subfolders(parent)]
        searched += len(level)
        if searched > MAX_FOLDERS:
            raise NoRecords(
                f"{place} is no sweep's folder (it has no records/*.json) and has too many folders to search; name the "
                "folders of sweeps"
            )
        yield from level
        level = [folder for folder in level if not (folder / "records").is_dir()]


def _subfolders(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            children = [entry for entry in entries if not entry.name.startswith(".")]
            return [Path(entry.path) for entry in children if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
