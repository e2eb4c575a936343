"""The end of a sweep: its report, its tracking, and the table on the terminal."""

from __future__ import annotations

import sys

from bench.sweep.breakdown import Breakdown
from bench.sweep.records import SweepRecords
from bench.tracking.tracker import Tracker


def load_libraries() -> None:
    """Import what ``write_report`` needs: seconds, which a sweep has while its host servers start."""
    import analysis.report.terminal
    import analysis.report.write  # noqa: F401


def write_report(sweep: SweepRecords, tracker: Tracker, breakdown: Breakdown, *, show_breakdown: bool) -> bool:
    """Reports, logs and prints all records of the sweep's folder; whether the report could be written."""
    from analysis.report import write
    from analysis.report.model.content import Content
    from analysis.report.terminal import print_summary

    store = sweep.store
    records = list((sweep.earlier | sweep.by_cell).values())
    content = Content(records, store.warnings)
    try:
        paths = write.write_report(content, store.folder)
    except OSError as error:
        paths = None
        store.warnings.append(f"no report ({error}); later: python -m analysis report {store.folder} --out FOLDER")
    breakdown.lap("report")
    tracker.log_sweep(records, store.folder, instead=bool(sweep.earlier))
    breakdown.lap("tracking")
    if show_breakdown:
        breakdown.show()
    print(breakdown.line(), file=sys.stderr)
    print_summary(content, paths, tracker.warnings)
    return paths is not None
