"""The end of a sweep: its report, its tracking, and the table on the terminal."""

from __future__ import annotations

from bench.sweep.breakdown import Breakdown
from bench.sweep.records import SweepRecords
from bench.tracking.tracker import Tracker


def write_report(sweep: SweepRecords, tracker: Tracker, breakdown: Breakdown, *, show_breakdown: bool) -> bool:
    """Reports, logs and prints all records of the sweep's folder; whether the report could be written."""
    from analysis.advice.alpha_beta import fit_rows
    from analysis.report import write
    from analysis.report.terminal import print_summary
    from analysis.table.frame import frame

    store = sweep.store
    records = list((sweep.earlier | sweep.by_cell).values())
    table = frame(records)
    try:
        paths = write.write_report(records, store.folder, store.warnings, table=table)
    except OSError as error:
        paths = None
        store.warnings.append(f"no report ({error}); later: python -m analysis report {store.folder} --out FOLDER")
    breakdown.lap("report")
    tracker.log_sweep(records, store.folder, instead=bool(sweep.earlier))
    breakdown.lap("tracking")
    if show_breakdown:
        breakdown.show()
    print_summary(table, paths, [*store.warnings, *tracker.warnings], by_size=fit_rows(records, table))
    return paths is not None
