"""Logs earlier sweeps to MLflow: ``python -m bench.tracking import PATH...``.

A store that cannot be reached costs a warning and nothing else: the records are on disk.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.tracking.tracker import connect
from results.mlflow_store import default_uri
from results.secrets import warning_of_visible
from results.settings import Tracking
from terminal.output import prepare_output


def import_folders(paths: list[Path], settings: Tracking, *, again: bool = False) -> int:
    """Logs every sweep in ``paths`` unless the experiment has all of it, ``again`` even then; the exit code.

    A sweep takes the place of what the experiment has of it, such as a partially logged sweep, or what there was
    before it was resumed.
    """
    from results.read import NoRecords, load

    code = 0
    tracker = connect(settings)
    for folder in paths:
        try:
            sweep = load([folder / "records"])
        except NoRecords as error:
            print(f"{folder}: {error}", file=sys.stderr)
            code = 1
            continue
        for warning in sweep.warnings:
            print(f"skipped: {warning}", file=sys.stderr)
            code = 1
        if not again and tracker.has(sweep.records):
            print(f"{folder}: already in experiment {settings.experiment}; --again replaces it")
            continue
        before = len(tracker.warnings)
        tracker.log_sweep(sweep.records, folder, instead=True)
        if len(tracker.warnings) == before:
            print(f"{folder}: {len(sweep.records)} records")
    for warning in tracker.warnings:
        print(warning, file=sys.stderr)
    return code or int(bool(tracker.warnings))


def main() -> int:
    defaults = Tracking()
    parser = argparse.ArgumentParser(prog="python -m bench.tracking", description=__doc__.partition(":")[0])
    command = parser.add_subparsers(dest="command", required=True)
    imported = command.add_parser("import", help="log the records of earlier sweeps")
    imported.add_argument("paths", nargs="+", type=Path, help="a sweep's folder (results/runs/DATE_TIME)")
    imported.add_argument(
        "--uri",
        default=default_uri(),
        help=f"MLflow store or server (default: $MLFLOW_TRACKING_URI, else {Tracking.uri})",
    )
    imported.add_argument("--experiment", default=defaults.experiment, help="MLflow experiment (default: %(default)s)")
    imported.add_argument("--again", action="store_true", help="replace sweeps that the experiment has already")
    prepare_output()
    arguments = parser.parse_args()
    if visible := warning_of_visible(sys.argv[1:]):
        print(visible, file=sys.stderr)
    settings = Tracking(uri=arguments.uri, experiment=arguments.experiment)
    try:
        return import_folders(arguments.paths, settings, again=arguments.again)
    except Exception as error:  # whatever the store says, one line of it
        from results.mlflow_store import first_line

        print(f"bench.tracking: {first_line(error)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
