"""Trace files of one rank: written whole or not at all. A file that cannot be written leaves a reason."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from bench import causes
from bench.job import TracePlace
from results.atomic import replacing
from results.traces import FOLDER, MemoryTimeline, RankTraces, TraceFile, TraceKind

ENDINGS = {"steps": "json.gz", "memory": "memory.json.gz", "snapshot": "snapshot.pickle"}
MAX_EVENTS = 2_000_000
"""Of a profile that is written: about 600 MiB of JSON before compression, the most that Perfetto opens."""
EVENT_BYTES = 400
"""Of an event in JSON, at most, on average."""
LEVEL = 3
"""Of compression: three times as fast as the default, for files a tenth larger."""


class TraceFiles:
    """Writes the files of one rank and keeps account of them."""

    def __init__(self, place: TracePlace, rank: int) -> None:
        self._place, self._rank = place, rank
        self._files: list[TraceFile] = []
        self._not_written: dict[str, str] = {}

    def write(self, kind: TraceKind, write: Callable[[Path], None], events: int = 0) -> None:
        """Lets ``write`` write one file, and compresses JSON. ``events``: of a profile, how many it has."""
        if why := self._prevented(events):
            self._not_written[kind] = why
            return
        name = f"{self._place.cell}.rank{self._rank}.{ENDINGS[kind]}"
        path = Path(self._place.folder, name)
        try:
            with replacing(path) as partial:
                write(partial)
                if name.endswith(".gz"):
                    compress(partial)
            self._files.append(TraceFile(self._rank, kind, f"{FOLDER}/{name}", path.stat().st_size))
        except OSError as error:
            self._not_written[kind] = causes.in_words(error) if error.errno else str(error)

    def result(self, timeline: MemoryTimeline | None = None) -> RankTraces:
        return RankTraces(self._files, self._not_written, timeline)

    def _prevented(self, events: int) -> str:
        """Why the file cannot be written; empty if it may be."""
        folder = self._place.folder
        if not Path(folder).is_dir():
            return f"{folder} does not exist on host {os.uname().nodename}"
        if events > MAX_EVENTS:
            return f"the profile has {events:,} events, more than {MAX_EVENTS:,}; a lower steps=N profiles fewer steps"
        free, needed = shutil.disk_usage(folder).free, events * EVENT_BYTES
        if free < needed:
            return f"{free >> 20:,} MiB are free in {folder}, and the trace needs up to {needed >> 20:,} MiB"
        return ""


def compress(path: Path) -> None:
    """Replaces a JSON document by the same, compressed. Raises OSError, also for one that was cut short."""
    packed = path.with_name(f"{path.name}.gz.partial")
    try:
        with path.open("rb") as source:
            source.seek(-min(64, path.stat().st_size), os.SEEK_END)
            if not source.read().rstrip().endswith(b"}"):  # torch's writer in C++ does not report a full disk
                raise OSError(f"the file was cut short at {path.stat().st_size:,} bytes; the disk may be full")
            source.seek(0)
            with gzip.open(packed, "wb", LEVEL) as target:
                shutil.copyfileobj(source, target, 1 << 20)
        os.replace(packed, path)
    finally:
        packed.unlink(missing_ok=True)
