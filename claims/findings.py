"""Findings as a file: by claim, with the commands that measured them, and the machine that they were measured on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from claims.claim import Finding
from results.atomic import write_whole
from results.decode import decode

VERSION = 1


class NotFindings(ValueError):
    """A file holds no findings; the message is one line."""


@dataclass(frozen=True)
class FindingEntry:
    """A finding, the commands that measured it, and when."""

    finding: Finding
    commands: list[str]
    measured_at: str


@dataclass
class Findings:
    """All of one machine."""

    machine: dict[str, Any] = field(default_factory=dict)
    by_claim: dict[str, FindingEntry] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"version": VERSION, "machine": self.machine}
        document["claims"] = {id: asdict(entry) for id, entry in sorted(self.by_claim.items())}
        write_whole(path, json.dumps(document, indent=1) + "\n")


def read(path: Path) -> Findings:
    """Raises NotFindings, naming the file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']!r}; this version reads {VERSION}")
        by_claim = {id: decode(entry, FindingEntry, id) for id, entry in document["claims"].items()}
        return Findings(dict(document["machine"]), by_claim)
    except OSError as error:
        raise NotFindings(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise NotFindings(f"{path}: not findings ({type(error).__name__}: {error})") from error
