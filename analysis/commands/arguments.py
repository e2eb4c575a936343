"""Arguments that several commands have, and reading the records that they name."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.read import Loaded

Commands = Any
"""What ``ArgumentParser.add_subparsers`` returns."""


def add_command(commands: Commands, name: str, *, short: str, long: str, examples: str) -> argparse.ArgumentParser:
    """A command of ``python -m analysis`` with its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=short, description=long, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return parser


def add_places(command: argparse.ArgumentParser) -> None:
    """Adds the arguments that name records: ``paths``, or an MLflow experiment."""
    command.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="a sweep's folder (with records/*.json), a folder of such folders, record files, or mlflow:RUN_ID",
    )
    command.add_argument(
        "--mlflow",
        metavar="URI",
        help="read an MLflow experiment, or mlflow:RUN_ID; default: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db",
    )
    command.add_argument("--experiment", metavar="NAME", help="the experiment to read; default: ddp-zero-bench")


def add_same(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--same", type=float, default=2.0, metavar="PERCENT", help="what counts as the same step time; default: 2"
    )


def read(arguments: argparse.Namespace) -> Loaded:
    """The records that the arguments of ``add_places`` name. Raises NoRecords."""
    from results.mlflow_store import load_places

    gc.disable()  # records are kept and hold no cycles: to look for some in millions of samples takes seconds
    try:
        return load_places(arguments.paths, arguments.mlflow, arguments.experiment)
    finally:
        gc.freeze()
        gc.enable()


def warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def size(text: str) -> int:
    """Bytes of such as 16GiB."""
    from results.quantities import size_bytes

    try:
        return size_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; valid: such as 16GiB or 500MB") from error
