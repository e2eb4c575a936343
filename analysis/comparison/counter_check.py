"""The exact gate: what a sweep counted against a committed baseline. Any difference is shown, and whose it is.

A difference is the code's unless a library that the cell's engine runs on has another version than in the baseline, or
the engine cannot run here. Only then is it not known whose it is, and the gate ends with another exit code.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.comparison import exact_quantities
from analysis.comparison.exact_quantities import Quantities, Value
from analysis.text.units import counted
from analysis.theory import has_exact_peak
from results.atomic import write_whole
from results.record import Record
from terminal.tables import bare

SAME, CODE, UNREADABLE, LIBRARIES = 0, 1, 2, 3
"""Exit codes: nothing differs; the code made a difference; nothing could be compared; only libraries may have."""
NOT_A_BASELINE = ("failed", "timeout", "oom", "parity_failed", "interrupted")
"""Statuses that no baseline can have."""
VERSION = 1
SETTINGS = "all cells"
MOST_ROWS = 60
"""Rows of the table; the rest is counted."""

What = Literal["changed", "missing", "new"]


class GateError(ValueError):
    """Baseline or records cannot be used; the message is one line."""


@dataclass(frozen=True)
class Baseline:
    """An accepted change, and its reason."""

    reason: str
    libraries: dict[str, dict[str, str]]
    """By engine."""
    settings: Quantities
    cells: dict[str, Quantities]
    engines: dict[str, str]
    """The engine of each cell."""
    without_peak: tuple[str, ...] = ()
    """Engines and stages whose peak is not exact, such as ``torch stage 3``."""


@dataclass(frozen=True)
class CounterDifference:
    """One quantity of one cell, or all of a cell that only one side has."""

    cell: str
    quantity: str
    before: Value
    now: Value
    what: What
    libraries: str
    """Possible causes other than the code; empty if only the code can be one."""


def measured(records: Sequence[Record], reason: str = "") -> Baseline:
    """The baseline that these records would be. Raises GateError if two cells have one name."""
    cells: dict[str, Quantities] = {}
    engines: dict[str, str] = {}
    for record in sorted(records, key=exact_quantities.name):
        name = exact_quantities.name(record)
        if name in cells:
            raise GateError(f"two configurations are {name}; name one sweep of experiment=exact")
        cells[name], engines[name] = exact_quantities.quantities(record), exact_quantities.engine(record)
    inexact = {
        f"{exact_quantities.engine(record)} stage {record.config['stage']}"
        for record in records
        if record.memory and not has_exact_peak(record)
    }
    return Baseline(
        reason,
        exact_quantities.libraries(records),
        exact_quantities.settings(records),
        cells,
        engines,
        tuple(sorted(inexact)),
    )


def check_same_sweep(before: Baseline, now: Baseline) -> None:
    """Raises GateError if the sweep has none of the baseline's configurations: then it is another sweep."""
    if before.cells and not before.cells.keys() & now.cells.keys():
        raise GateError(
            f"none of the sweep's {counted(len(now.cells), 'configuration')} is in the baseline; measure it with: "
            "python -m bench experiment=exact hydra.sweep.dir=FOLDER"
        )


def differences(before: Baseline, now: Baseline) -> list[CounterDifference]:
    """Everything that differs. An engine that cannot run here and that the baseline lacks too is no difference."""
    entries = [
        CounterDifference(SETTINGS, key, before.settings[key], now.settings[key], "changed", "")
        for key in before.settings
        if key in now.settings and before.settings[key] != now.settings[key]
    ]
    for cell in sorted(before.cells | now.cells):
        libraries = whose(before, now, cell)
        if cell not in now.cells:
            entries.append(CounterDifference(cell, "status", before.cells[cell]["status"], None, "missing", libraries))
        elif cell not in before.cells:
            if now.engines[cell] not in absent(now):
                entries.append(CounterDifference(cell, "status", None, now.cells[cell]["status"], "new", libraries))
        else:
            entries += _changes(cell, before.cells[cell], now.cells[cell], libraries)
    return entries


def _changes(cell: str, before: Quantities, now: Quantities, libraries: str) -> list[CounterDifference]:
    """Of a cell that ends differently the ending is the difference, and what it then lacks is not listed."""
    names = ["status", "parity"] if before["status"] != now["status"] else list(before | now)
    return [
        CounterDifference(cell, name, before.get(name), now.get(name), "changed", libraries)
        for name in names
        if before.get(name) != now.get(name) and (name in now or before["status"] == now["status"])
    ]


def absent(now: Baseline) -> set[str]:
    """The engines that cannot run here."""
    return {now.engines[name] for name, cell in now.cells.items() if cell["status"] == "unavailable"}


def whose(before: Baseline, now: Baseline, cell: str) -> str:
    """Differences of libraries between the two sides of a cell; empty if there are none."""
    engine = now.engines.get(cell) or before.engines[cell]
    if engine in absent(now):
        return f"engine={engine} cannot run here"
    ours, theirs = before.libraries.get(engine, {}), now.libraries.get(engine, {})
    added = [f"{key} {theirs[key]} is not in the baseline" for key in theirs if key not in ours and key != "torch"]
    return ", ".join(exact_quantities.changed_libraries(ours, theirs) + added)


def exit_code(differences: Sequence[CounterDifference]) -> int:
    if not differences:
        return SAME
    return LIBRARIES if all(difference.libraries for difference in differences) else CODE


def accept(old: Baseline | None, now: Baseline) -> Baseline:
    """The new baseline. Cells of engines that cannot run here stay as they were.

    Raises GateError if a cell did not end well: that cannot be what is wanted.
    """
    bad = [name for name, cell in now.cells.items() if cell["status"] in NOT_A_BASELINE]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        status = now.cells[bad[0]]["status"]
        raise GateError(f"{bad[0]}{more}: {status}; a baseline has only configurations that end well")
    gone, kept_from = absent(now), old or Baseline("", {}, {}, {}, {})
    cells = {name: cell for name, cell in now.cells.items() if now.engines[name] not in gone}
    cells |= {name: cell for name, cell in kept_from.cells.items() if kept_from.engines[name] in gone}
    engines = {name: (kept_from.engines | now.engines)[name] for name in cells}
    libraries = {name: (kept_from if name in gone else now).libraries[name] for name in set(engines.values())}
    return Baseline(now.reason, libraries, now.settings, cells, engines)


def read(path: Path) -> Baseline:
    """Raises GateError if the file is not a baseline."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["version"] != VERSION:
            raise GateError(f"{path}: version {document['version']!r}; this gate reads {VERSION}")
        cells = {name: dict(cell["exact"]) for name, cell in document["cells"].items()}
        engines = {name: str(cell["engine"]) for name, cell in document["cells"].items()}
        if not all("status" in cell for cell in cells.values()):
            raise KeyError("status")
        libraries = {name: dict(used) for name, used in document["libraries"].items()}
        return Baseline(document["reason"], libraries, dict(document["settings"]), cells, engines)
    except OSError as error:
        raise GateError(f"{path}: no baseline ({error.strerror}); --accept REASON writes one") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, GateError):
            raise
        raise GateError(f"{path}: not a baseline ({type(error).__name__}: {error})") from error


def write(path: Path, baseline: Baseline) -> None:
    """Sorted and one quantity a line, the reason first, so that a diff shows what changed and why."""
    document = {
        "version": VERSION,
        "reason": baseline.reason,
        "libraries": {name: dict(sorted(used.items())) for name, used in sorted(baseline.libraries.items())},
        "settings": dict(sorted(baseline.settings.items())),
        "cells": {
            name: {"engine": baseline.engines[name], "exact": dict(sorted(cell.items()))}
            for name, cell in sorted(baseline.cells.items())
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(document, indent=1) + "\n")


def show(differences: Sequence[CounterDifference], before: Baseline, now: Baseline, out: Console) -> None:
    """Prints what differs, a row a quantity, what it comes to, and what was not looked at."""
    for line in notes(before, now):
        out.print(Text(line, style="yellow"), soft_wrap=True)
    shared_cells = [name for name in before.cells if name in now.cells]
    if not differences:
        total = sum(len(before.cells[name]) for name in shared_cells)
        out.print(
            f"exact gate: {counted(len(shared_cells), 'configuration')} and {total:,} numbers are as in the baseline"
        )
        return
    out.print(table(differences))
    if len(differences) > MOST_ROWS:
        out.print(f"... and {len(differences) - MOST_ROWS} more")
    counts = Counter((difference.what, bool(difference.libraries)) for difference in differences)
    words = [
        f"{number} {what}{', perhaps by a library' if by_library else ''}"
        for (what, by_library), number in counts.items()
    ]
    cells = len({difference.cell for difference in differences})
    out.print(
        f"exact gate: {'; '.join(words)}; in {counted(cells, 'configuration')} of {len(before.cells | now.cells)}"
    )


def notes(before: Baseline, now: Baseline) -> list[str]:
    """Other versions of libraries, and engines that neither side could run."""
    lines = []
    for engine, used in sorted(now.libraries.items()):
        changed = exact_quantities.changed_libraries(before.libraries.get(engine, {}), used)
        if changed:
            lines.append(f"other libraries than in the baseline, engine={engine}: {', '.join(changed)}")
    lines += [f"not looked at: engine={engine} cannot run here" for engine in sorted(absent(now))]
    if now.without_peak:
        lines.append(f"peak not held, which differs from run to run over gloo: {', '.join(now.without_peak)}")
    return lines


def table(differences: Sequence[CounterDifference]) -> Table:
    drawn = bare(("configuration", "quantity", "baseline", "now", "other possible causes"))
    last = ""
    for difference in differences[:MOST_ROWS]:
        drawn.add_row(
            "" if difference.cell == last else difference.cell,
            difference.quantity,
            _word(difference.before),
            _word(difference.now),
            difference.libraries,
            style="yellow" if difference.libraries else "red",
        )
        last = difference.cell
    return drawn


def _word(value: Value) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
