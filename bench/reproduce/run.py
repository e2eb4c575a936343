"""Runs the cell of a record again; compares the new record with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.reproduce import report
from bench.reproduce.request import CannotReproduce, check_hosts, chosen, config_of, fetch, overrides
from results.record import Record, RecordError
from results.settings import Config

REPRODUCED, DIFFERS, INTERRUPTED = 0, 1, 130
"""Exit codes."""
NEVER_RAN = ("unsupported", "unavailable", "interrupted")


def reproduce(settings: Config, given: Sequence[str], folder: Path) -> int:
    """Runs the cell of ``settings.reproduce`` in ``folder``, compares and reports; the exit code.

    ``given`` are the overrides of the command. Raises CannotReproduce for what keeps the cell from being tried.
    """
    from bench.sweep.run import run

    assert settings.reproduce is not None
    before = fetch(settings.reproduce, settings.tracking)
    if before.status in NEVER_RAN and not before.launches:
        why = f" ({before.reason})" if before.reason else ""
        raise CannotReproduce(f"{before.cell_id} was {before.status}{why}; there is nothing to reproduce")
    check_hosts(before, settings.cluster)
    config = chosen(config_of(before), settings, overrides(list(given)))
    code = run([config], folder)
    if code == INTERRUPTED:
        return code
    after = outcome(folder)
    if after.status in NEVER_RAN:
        raise CannotReproduce(f"{before.cell_id} cannot run here: {after.reason}")
    return REPRODUCED if report.compare(before, after, folder) else DIFFERS


def outcome(folder: Path) -> Record:
    """The record that the run left."""
    try:
        (path,) = (folder / "records").glob("*.json")
        return Record.read(path)
    except (ValueError, RecordError) as error:
        raise CannotReproduce(f"the run left no record in {folder}: {error}") from error
