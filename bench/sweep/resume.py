"""``resume=true``: the records of an earlier run in the folder are continued."""

from __future__ import annotations

import dataclasses
import sys

from bench.checks import ConfigError
from bench.sweep.records import GOES_ON, SweepRecords
from results import differences
from results.store import rescue_folders


def take_over(records: SweepRecords) -> None:
    """Takes over what an earlier run in this folder measured. Raises ConfigError if that was another machine.

    A cell that other code has finished is kept, with a warning: that code is in its record, and a sweep is often
    resumed because its code was mended. One that it has begun starts again, so that no cell mixes two codes. A cell's
    ``repeats`` are from then on those of the present request, or as many as it has.
    """
    from results.validate import check

    store = records.store
    try:
        store.take_back()
    except OSError as error:
        places = ", ".join(map(str, rescue_folders(store.folder)))
        raise ConfigError(
            f"resume: {store.folder} cannot be written ({error.strerror}); records of it are in {places}; make room, "
            "then resume again"
        ) from error
    for warning in store.warnings:
        print(warning, file=sys.stderr)
    records.earlier = store.existing(check)
    if records.earlier:
        records.rename(next(iter(records.earlier.values())).sweep_id)
    others = []
    for cell_id, earlier in records.earlier.items():
        changed = differences.machine_differences(earlier.environment, records.environment)
        if changed:
            raise ConfigError(f"resume: {store.folder} was measured elsewhere ({'; '.join(map(str, changed))})")
        measured = earlier.launches or earlier.search
        if cell_id in records.by_cell and earlier.status in ("failed", "timeout", "oom") and measured:
            earlier = dataclasses.replace(earlier, status="interrupted", reason="", failure=[])  # one launch failed
        if cell_id in records.by_cell and earlier.status in GOES_ON:
            repeats = records.by_cell[cell_id].config["repeats"]
            earlier.config["repeats"] = max(repeats, len(earlier.launches))
            records.by_cell[cell_id] = earlier
            if records.source and differences.code_differences(earlier, records.source, records.environment):
                others.append(cell_id)
    unfinished = [cell for cell in records.cells if cell.id in others and records.launches_left(cell)]
    for cell in unfinished:
        store.set_aside(records[cell])
        records[cell] = records.new(cell)
    if records.source and others:
        store.warnings.append(
            f"resume: the sweep now mixes codes: {len(others)} configuration(s) differ from the rest "
            f"({differences.code_differences(records.earlier[others[0]], records.source, records.environment)}); "
            f"{len(unfinished)} of them, not finished, start again"
        )
        print(store.warnings[-1], file=sys.stderr)
