"""``report``: tables, pages and figures of the records."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.commands.arguments import Commands, add_command, add_places, read, size

EXAMPLES = """\
examples:
  python -m analysis report results/runs/2026-03-01_09-30-00
      rewrites the report of one sweep, in the sweep's own folder
  python -m analysis report results/runs/A results/runs/B --out comparison
      one report on the configurations of two sweeps
  python -m analysis report records/torch-s0-n1-digits-fp32.json --out one-configuration
  python -m analysis report --mlflow sqlite:///mlflow.db --experiment ddp-zero-bench --out all
      one report on every configuration of an MLflow experiment
  python -m analysis report results/runs/today --gpu-memory 80GiB
      with a section on how large a model fits that memory at each stage and world size
"""


def add(commands: Commands) -> None:
    report = add_command(
        commands,
        "report",
        short="write summary.csv, report.md, report.html and figures/, and print a table",
        long="Writes summary.csv and summary.parquet (a row per configuration, SI units), report.md, report.html (one "
        "file that opens offline) and figures/ (PNG and SVG), then prints a table and the paths. Files that cannot be "
        "read are listed and passed over.",
        examples=EXAMPLES,
    )
    add_places(report)
    report.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where to write; default: PATH if it is one sweep's folder, else ./report",
    )
    report.add_argument(
        "--gpu-memory",
        type=size,
        metavar="SIZE",
        help="also say how large a model fits this much memory per rank with each setting, such as 80GiB",
    )
    report.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from analysis.report.model.content import Content
    from analysis.report.terminal import print_summary
    from analysis.report.write import write_report

    source = read(arguments)
    content = Content(source.records, source.warnings, arguments.gpu_memory)
    print_summary(content, write_report(content, arguments.out or home(arguments.paths)))
    return 0


def home(paths: list[Path]) -> Path:
    """The folder of a report without --out: into the sweep's folder if one sweep was named, else to ./report."""
    from results.read import is_sweep

    if len(paths) != 1 or not is_sweep(paths[0]):
        return Path("report")
    return paths[0].parent if paths[0].resolve().name == "records" else paths[0]
