"""``gate``: what a sweep counted against a committed baseline."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from analysis.commands.arguments import Commands, add_command, add_places, read, warn

EXAMPLES = """\
examples:
  python -m bench experiment=exact hydra.sweep.dir=results/runs/exact
  python -m analysis gate results/runs/exact --baseline results/reference/cpu-gloo/exact.json
  python -m analysis gate results/runs/exact --baseline FILE --accept "native: gradients of 8 MiB go out earlier"
      replaces FILE; the reason goes into it, and git shows what changed

exit code: 0 if nothing differs; 1 if the code made a difference; 2 if nothing could be compared; 3 if all that differs
belongs to engines whose libraries have another version than in the baseline, or that cannot run here
"""


def add(commands: Commands) -> None:
    gate = add_command(
        commands,
        "gate",
        short="hold what a sweep counted against a committed baseline",
        long="Compares what is counted and never timed (collectives, bytes, buckets, model state, peak, parity, "
        "launches) with a baseline, and prints each difference. Measured by experiment=exact; make gate does both.",
        examples=EXAMPLES,
    )
    add_places(gate)
    gate.add_argument("--baseline", type=Path, required=True, metavar="FILE", help="what was accepted")
    gate.add_argument("--accept", type=reason, metavar="REASON", help="make this the baseline, and say why")
    gate.set_defaults(run=run)


def reason(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; valid: why the numbers changed, in a line")
    return " ".join(text.split())


def run(arguments: argparse.Namespace) -> int:
    from analysis.comparison import counter_check
    from terminal.tables import console

    source = read(arguments)
    warn(source.warnings)
    now = counter_check.measured(source.records, arguments.accept or "")
    old = counter_check.read(arguments.baseline) if arguments.baseline.exists() or arguments.accept is None else None
    if old:
        counter_check.check_same_sweep(old, now)
    differences = counter_check.differences(old, now) if old else []
    out = console()
    if old:
        counter_check.show(differences, old, now, out)
    if arguments.accept is None:
        if differences:
            again = shlex.join(["gate", *map(str, arguments.paths), "--baseline", str(arguments.baseline)])
            print(f'to accept this on purpose: python -m analysis {again} --accept "REASON"')
        return counter_check.exit_code(differences)
    if differences or old is None:
        counter_check.write(arguments.baseline, counter_check.accept(old, now))
        print(f"accepted: {arguments.baseline}")
    return 0
