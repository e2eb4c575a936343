"""``noise``: how small a change so many launches can find."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.commands.arguments import Commands, add_command, add_places, read, warn

EXAMPLES = """\
examples:
  python -m analysis noise results/runs/today --out results/reference/MACHINE/noise.json
      of two sides with equal code (python -m bench.regress --base HEAD): pairs of launches of one round
  python -m analysis noise results/runs/monday results/runs/tuesday
      of sweeps of the same code: pairs of launches that follow each other, and how far the sweeps lie apart
"""


def add(commands: Commands) -> None:
    noise = add_command(
        commands,
        "noise",
        short="say how small a change so many launches can find",
        long="From launches of the same code: the smallest change of a configuration's step time that so many launches "
        "a side find (95 % interval, in four of five comparisons), and the launches that a change of so many per cent "
        "takes.",
        examples=EXAMPLES,
    )
    add_places(noise)
    noise.add_argument("--out", type=Path, metavar="FILE", help="keep it, as FILE.json or FILE.csv")
    noise.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from analysis.comparison.noise import floors, table, write
    from analysis.comparison.verdict import NothingToCompare
    from terminal.tables import console

    if arguments.out and arguments.out.suffix not in (".json", ".csv"):
        raise NothingToCompare(f"--out {arguments.out} is not valid; valid: a name that ends in .json or .csv")
    records = read(arguments)
    cell_floors, warnings = floors(records.records)
    warn([*records.warnings, *warnings])
    out = console()
    out.print(table(cell_floors, records.records))
    if not all(entry.interleaved for entry in cell_floors):
        out.print("*: pairs of launches that follow each other, not of one round")
    if arguments.out:
        write(cell_floors, records.records, arguments.out)
        out.print(f"kept in {arguments.out}", markup=False, soft_wrap=True)
    return 0
