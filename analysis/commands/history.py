"""``history``: where in a row of sweeps a configuration became slower or faster."""

from __future__ import annotations

import argparse

from analysis.commands.arguments import Commands, add_command, add_places, add_same, read, warn

EXAMPLES = """\
examples:
  python -m analysis history results/runs
      every configuration that is in several sweeps of the same hardware, in the order of time
  python -m analysis history results/runs/nightly/*/sweep
      of the nights' sweeps alone

exit code: 0 if no configuration's last change made it slower, 1 if one's did, 2 if there is nothing
to compare
"""


def add(commands: Commands) -> None:
    history = add_command(
        commands,
        "history",
        short="say where in a row of sweeps a configuration became slower or faster",
        long="Looks for change points in the step time of each configuration, over sweeps of the same hardware in the "
        "order of time. A sweep is one point, so a change shows only some sweeps later.",
        examples=EXAMPLES,
    )
    add_places(history)
    add_same(history)
    history.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from analysis.comparison.history import histories, summary, table
    from analysis.comparison.verdict import NothingToCompare
    from terminal.tables import console

    if not arguments.same > 0:
        raise NothingToCompare(f"--same {arguments.same:g} is not valid; valid: per cent above 0")
    records = read(arguments)
    warn(records.warnings)
    cell_series = histories(records.records, arguments.same / 100)
    out = console()
    out.print(table(cell_series))
    for line in summary(cell_series, arguments.same / 100):
        out.print(line, markup=False, soft_wrap=True)
    return int(any(entry.verdict == "slower" for entry in cell_series))
