"""The command line of analysis: ``python -m analysis report PATH...``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

EXAMPLES = """\
examples:
  python -m analysis report results/runs/2026-03-01_09-30-00
      rewrites the report of one sweep, in the sweep's own folder
  python -m analysis report results/runs/A results/runs/B --out comparison
      one report on the cells of two sweeps
  python -m analysis report records/torch-s0-n1-digits-fp32.json --out one-cell
"""


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m analysis", description="Reads the records of sweeps and says what they mean. Needs no torch."
    )
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")
    report = commands.add_parser(
        "report",
        help="write summary.csv, report.md, report.html and figures/, and print a table",
        description="Writes summary.csv (a row a cell, SI units), report.md, report.html (one file that opens offline) "
        "and figures/*.png, then prints a table and the paths. Files that cannot be read are listed and passed over.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="a sweep's folder (with records/*.json), a folder of such folders, or record files",
    )
    report.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write; default: PATH if it is one folder, else ./report"
    )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, or 2 with one line on stderr if it could not be done."""
    asked = parser().parse_args(arguments)
    from analysis.load import NoRecords

    try:
        return _report(asked.paths, asked.out)
    except NoRecords as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: the report cannot be written: {error}", file=sys.stderr)
    return 2


def _report(paths: list[Path], out: Path | None) -> int:
    from analysis.load import frame, load
    from analysis.report import write_report
    from analysis.terminal import print_summary

    found = load(paths)
    table = frame(found.records)
    written = write_report(found.records, out or _home(paths), found.warnings, table=table)
    print_summary(table, written, found.warnings)
    return 0


def _home(paths: list[Path]) -> Path:
    """Where a report goes if nobody says: beside the records of the one folder that was named."""
    if len(paths) != 1 or not paths[0].is_dir():
        return Path("report")
    return paths[0].parent if paths[0].resolve().name == "records" else paths[0]


if __name__ == "__main__":
    sys.exit(main())
