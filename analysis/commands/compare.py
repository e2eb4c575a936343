"""``compare``: two sweeps, or two settings of one, configuration by configuration."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.commands.arguments import Commands, add_command, add_same, warn

EXAMPLES = """\
examples:
  python -m analysis compare results/runs/monday results/runs/tuesday
      every configuration of tuesday against the same one of monday
  python -m analysis compare results/runs/today --between engine=torch,native
      within one sweep: native against torch, at each stage and world size
  python -m analysis compare results/runs/today --between bucket_mb=25,4 --same 5
      any setting; a step within 5 % counts as the same
  python -m analysis compare mlflow:RUN_ID mlflow:RUN_ID --mlflow http://HOST:5000
      two sweeps (their parent runs) or two configurations that MLflow has

exit code: 0 if nothing is slower, 1 if a configuration is slower or no longer ends
well, 2 if nothing could be compared
"""


def add(commands: Commands) -> None:
    compare = add_command(
        commands,
        "compare",
        short="compare two sweeps, or two settings of one, configuration by configuration",
        long="Prints what sets the environments apart, then for each configuration the step time of the second side "
        "over the first's, with its interval, and a verdict: faster, slower, same, or cannot tell and how many "
        "launches would.",
        examples=EXAMPLES,
    )
    compare.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="two places of records (or mlflow:RUN_ID), or one --between"
    )
    compare.add_argument(
        "--mlflow",
        metavar="URI",
        help="the store of mlflow:RUN_ID; default: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db",
    )
    compare.add_argument(
        "--between",
        type=two_values,
        metavar="SETTING=A,B",
        help="compare configurations of one place that differ in this alone",
    )
    add_same(compare)
    compare.set_defaults(run=run)


def two_values(text: str) -> tuple[str, tuple[str, str]]:
    setting, _, values = text.partition("=")
    first, _, second = values.partition(",")
    if not (setting and first and second) or "," in second:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid; valid: SETTING=A,B such as engine=torch,native")
    return setting, (first, second)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raises NothingToCompare for a wrong number of paths, or a margin that is not positive."""
    from analysis.comparison.verdict import NothingToCompare

    count = len(arguments.paths)
    if arguments.between and count != 1:
        raise NothingToCompare(f"compare --between compares within one PATH; there are {count}")
    if not arguments.between and count != 2:
        raise NothingToCompare(
            f"compare needs two PATHs, and there {'is 1' if count == 1 else f'are {count}'}; to compare settings "
            "within one sweep add --between SETTING=A,B, such as --between engine=torch,native"
        )
    if not arguments.same > 0:
        raise NothingToCompare(f"--same {arguments.same:g} is not valid; valid: per cent above 0")


def run(arguments: argparse.Namespace) -> int:
    from analysis.comparison import compare as compare_comparison
    from results.identity import INFO
    from results.mlflow_store import load_places
    from terminal.tables import console

    margin = arguments.same / 100
    check_arguments(arguments)
    sets = [load_places([path], arguments.mlflow) for path in arguments.paths]
    if arguments.between:
        setting, values = arguments.between
        pairs, alone = compare_comparison.pair_values(sets[0].records, setting, values)
        sides = (
            values
            if setting in INFO and INFO[setting].label == "{}"
            else (f"{setting}={values[0]}", f"{setting}={values[1]}")
        )
    else:
        setting = None
        pairs, alone = compare_comparison.pair_sets(sets[0].records, sets[1].records)
        sides = ("first", "second")
    warn([line for source in sets for line in source.warnings])
    outcomes = [compare_comparison.compare(pair, margin) for pair in pairs]
    compare_comparison.show(outcomes, alone, sides, setting=setting, margin=margin, out=console())
    return int(any(outcome.failed for outcome in outcomes))
