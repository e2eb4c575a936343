"""The command line of analysis: ``python -m analysis COMMAND``; ``analysis.commands`` has the commands."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from analysis.commands import advise, compare, gate, history, noise, project, report
from results.secrets import warning_of_visible
from results.version import version_line
from terminal.output import prepare_output


def parser() -> argparse.ArgumentParser:
    all_commands = argparse.ArgumentParser(
        prog="python -m analysis", description="Reads the records of sweeps and says what they mean. Needs no torch."
    )
    all_commands.add_argument("--version", action="version", version=version_line())
    commands = all_commands.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (report, advise, project, compare, noise, history, gate):
        command.add(commands)
    return all_commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, or 2 with one line on stderr if it could not be done."""
    prepare_output()
    options = parser().parse_args(arguments)
    if visible := warning_of_visible(sys.argv[1:] if arguments is None else arguments):
        print(visible, file=sys.stderr)
    from analysis.comparison.counter_check import GateError
    from analysis.comparison.verdict import NothingToCompare
    from results.read import NoRecords

    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (GateError, NoRecords, NothingToCompare) as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: the report cannot be written: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
