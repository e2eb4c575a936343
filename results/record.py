"""The Record: everything measured about one cell, as plain data that outlives the code that wrote it.

A record is one JSON file. It is written atomically, read strictly (an unknown or missing field is an
error that names it) and needs nothing but the standard library, so that analysis runs where torch is
not installed. ``source``, ``health``, ``model``, ``parity``, ``memory``, ``launches`` and ``attribution`` hold
its parts.

``results.upgrade`` has the history of its format and turns records of earlier versions into ones of this version.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from results.atomic import replacing
from results.attribution import Attribution
from results.decode import decode
from results.document import one_line, read_document
from results.environment import Environment
from results.health import Health
from results.launches import Ceiling, Collective, Launch
from results.memory import RankMemory, Search
from results.model import Model
from results.parity import Parity
from results.resolved import Resolved
from results.shown import shown
from results.source import Source
from results.traces import Traces
from results.updates import Updates
from results.upgrade import SCHEMA_VERSION, upgraded

Status = Literal["ok", "failed", "timeout", "oom", "unsupported", "unavailable", "parity_failed", "interrupted"]

STATUSES: tuple[str, ...] = typing.get_args(Status)

NO_ENGINE = "-"
"""The name of the engine in the record of a cell that trains nothing (``workload=collectives``)."""


class RecordError(ValueError):
    """A file is not a record that this version can read; the message names the file and the field."""


BELOW = "/"
"""Between a run's name and its side's: no folder's name has one."""


def side_id(run: str, side: str) -> str:
    """The ``sweep_id`` of one of several sweeps that share their rounds."""
    return f"{run}{BELOW}{side}"


@dataclass(frozen=True)
class RankEnd:
    """The ending of a rank of a failed launch, and its last output."""

    rank: int
    ending: str
    """Exit code or signal, in words."""
    last_output: str
    """The last lines that it printed."""


@dataclass
class Record:
    """One configuration: the settings, what took effect, what was measured, and how it ended."""

    cell_id: str
    """Name of the configuration in its sweep, and of its file."""
    sweep_id: str
    """Name of the sweep's folder; of a side of ``bench.regress`` also the name of the side."""
    config: dict[str, Any]
    """Every setting as given; null means the default of the engine or workload."""
    resolved: Resolved
    """The settings that took effect: world size, threads, device, backend, batch sizes, the engine's description."""
    environment: Environment
    """Hardware, versions and environment variables; the same in all records of a sweep."""
    health: Health | None = None
    """Of the hosts and links of a cluster, before the sweep; None for one machine."""
    source: Source | None = None
    """The code that ran; None in records of earlier versions."""
    status: Status = "interrupted"
    """The outcome of the configuration."""
    reason: str = ""
    """Why it did not end ``ok``; empty if it did."""
    verdicts: list[str] = field(default_factory=list)
    """Ids of its warnings (``results.verdicts``)."""
    verdict_reasons: dict[str, str] = field(default_factory=dict)
    """By warning, what was measured and what to do; for warnings that depend on interference."""
    ceiling: Ceiling | None = None
    """None where it was not measured."""
    model: Model | None = None
    """None if no rank built it."""
    parity: Parity | None = None
    """None where it was not compared."""
    memory: list[RankMemory] = field(default_factory=list)
    """One entry per rank, from the untimed launch; empty where it was not measured."""
    collectives: list[Collective] | None = None
    """Rank 0's collectives in one step, from the same launch; with ``local_steps`` k, in k. None: not counted."""
    collectives_by_rank: list[list[Collective]] = field(default_factory=list)
    """Those of every rank, where ranks differ."""
    updates: list[Updates] = field(default_factory=list)
    """Per rank, for the steps whose memory and collectives were measured."""
    launches: list[Launch] = field(default_factory=list)
    """The timed launches, in the order of their rounds."""
    search: Search | None = None
    """With search=max_batch; ``memory`` is then that of the largest batch that fits."""
    attribution: Attribution | None = None
    """None where it was not measured."""
    traces: Traces | None = None
    """With measure.trace=true."""
    failure: list[RankEnd] = field(default_factory=list)
    """How each rank of the failed launch ended; empty if none failed."""
    schema_version: int = SCHEMA_VERSION
    """Version of this format."""

    @property
    def rounds_id(self) -> str:
        """The same for records that share their rounds: those of one sweep, or of both sides of ``bench.regress``."""
        return self.sweep_id.partition(BELOW)[0]

    @property
    def global_batch(self) -> int:
        """Samples per step over all ranks."""
        return int(self.resolved["global_batch"])

    @property
    def final_loss(self) -> float | None:
        """Mean over the ranks of the last launch's last measured loss."""
        if not self.launches or not self.launches[-1].ranks:
            return None
        losses = [rank.losses[-1] for rank in self.launches[-1].ranks]
        return sum(losses) / len(losses)

    def write(self, path: Path) -> None:
        """Writes the record so that a reader, or a crash, sees the old file or the new one, never a part."""
        with replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(self), file, allow_nan=True)

    @classmethod
    def read(cls, path: Path) -> Record:
        """Reads one record. Raises RecordError, naming the file and the field, if it is not one."""
        try:
            document = read_document(path)
        except RecursionError as error:
            raise RecordError(f"{path}: not a readable record: nested too deep") from error
        except (OSError, ValueError) as error:
            raise RecordError(f"{path}: not a readable record: {one_line(error)}") from error
        if not isinstance(document, dict):
            raise RecordError(f"{path}: not a record: the file holds no JSON object")
        version = document.get("schema_version")
        if version not in range(1, SCHEMA_VERSION + 1) or isinstance(version, bool):
            raise RecordError(f"{path}: schema_version is {shown(version)}; this version reads 1 to {SCHEMA_VERSION}")
        try:
            record = decode(upgraded(document), cls, "record")
        except ValueError as error:
            raise RecordError(f"{path}: {one_line(error)}") from error
        assert isinstance(record, cls)
        if record.cell_id in ("", ".", "..") or "/" in record.cell_id:  # records are files by this name
            raise RecordError(f"{path}: record.cell_id: {shown(record.cell_id)} is not the name of a file")
        return record


def shard_size(record: Record) -> int | None:
    """Ranks that share one copy of the model state; None for all."""
    size, hosts = record.config.get("shard_size"), record.resolved.get("hosts", [])
    if size == 0:
        if len(hosts) > 1:
            return hosts[0]["ranks"]
        network = record.resolved.get("network")
        emulated = network.get("host_of_rank", []) if network else []
        return emulated.count(0) if any(emulated) else None
    return size if isinstance(size, int) else None


def world_size(record: Record) -> int:
    """Ranks of the cell, as resolved or, where it never got that far, as asked."""
    size = record.resolved.get("world_size", record.config.get("gpus"))
    return size if isinstance(size, int) else 0
