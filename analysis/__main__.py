"""The command line of analysis: ``python -m analysis report``, ``advise``, ``compare``, ``noise`` and ``history``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.load import Loaded

EXAMPLES = """\
examples:
  python -m analysis report results/runs/2026-03-01_09-30-00
      rewrites the report of one sweep, in the sweep's own folder
  python -m analysis report results/runs/A results/runs/B --out comparison
      one report on the cells of two sweeps
  python -m analysis report records/torch-s0-n1-digits-fp32.json --out one-cell
  python -m analysis report --mlflow sqlite:///mlflow.db --experiment ddp-zero-bench --out all
      one report on every cell of an MLflow experiment
  python -m analysis report results/runs/today --gpu-memory 80GiB
      with a section on how large a model fits that memory at each stage and world size
"""
ADVICE = """\
examples:
  python -m analysis advise results/runs/today
      the fastest settings of each task, leanest first, with the overrides to paste
  python -m analysis advise results/runs/today --memory 16GiB --min-efficiency 0.8 --gpus 8

exit code: 0 if there is a setting that keeps the limits, 1 if there is none, 2 if nothing could be read
"""
COMPARISONS = """\
examples:
  python -m analysis compare results/runs/monday results/runs/tuesday
      every cell of tuesday against the same cell of monday
  python -m analysis compare results/runs/today --between engine=torch,native
      within one sweep: native against torch, at each stage and world size
  python -m analysis compare results/runs/today --between bucket_mb=25,4 --same 5
      any knob; a step within 5 % counts as the same
  python -m analysis compare mlflow:RUN_ID mlflow:RUN_ID --mlflow http://HOST:5000
      two sweeps (their parent runs) or two cells that MLflow has

exit code: 0 if nothing is slower, 1 if a cell is slower or no longer ends well, 2 if nothing could be compared
"""
NOISE = """\
examples:
  python -m analysis noise results/runs/today --out results/reference/MACHINE/noise.json
      of two sides with equal code (python -m bench.regress --base HEAD): pairs of launches of one round
  python -m analysis noise results/runs/monday results/runs/tuesday
      of sweeps of the same code: pairs of launches that follow each other, and how far the sweeps lie apart
"""
HISTORY = """\
examples:
  python -m analysis history results/runs
      every cell that is in several sweeps of the same hardware, in the order of time

exit code: 0 if no cell's last change made it slower, 1 if one's did, 2 if there is nothing to compare
"""
GATES = """\
examples:
  python -m bench experiment=exact hydra.sweep.dir=results/runs/exact
  python -m analysis gate results/runs/exact --baseline results/reference/cpu-gloo/exact.json
  python -m analysis gate results/runs/exact --baseline FILE --accept "native: gradients of 8 MiB go out earlier"
      writes FILE anew; the reason goes into it, and git shows what changed

exit code: 0 if nothing differs; 1 if the code made a difference; 2 if nothing could be compared; 3 if all that differs
belongs to engines whose libraries have another version than in the baseline, or that cannot run here
"""


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m analysis", description="Reads the records of sweeps and says what they mean. Needs no torch."
    )
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")
    report = commands.add_parser(
        "report",
        help="write summary.csv, report.md, report.html and figures/, and print a table",
        description="Writes summary.csv and summary.parquet (a row a cell, SI units), report.md, report.html (one file "
        "that opens offline) and figures/ (PNG and SVG), then prints a table and the paths. Files that cannot be read "
        "are listed and passed over.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="a sweep's folder (with records/*.json), a folder of such folders, record files, or mlflow:RUN_ID",
    )
    _add_store(report)
    report.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write; default: PATH if it is one folder, else ./report"
    )
    report.add_argument(
        "--gpu-memory",
        type=_bytes,
        metavar="SIZE",
        help="also say how large a model fits this much memory per rank with each setting, such as 80GiB",
    )
    report.set_defaults(run=_report)
    advise = commands.add_parser(
        "advise",
        help="say which settings to use under limits of memory and efficiency",
        description="Prints, for each task, the fastest settings that keep the limits (all that cannot be told from "
        "the fastest, the leanest first), slower ones that need less memory, and what was left out and why.",
        epilog=ADVICE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    advise.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="records, as for report")
    _add_store(advise)
    advise.add_argument("--memory", type=_bytes, metavar="SIZE", help="most peak memory of a rank, such as 16GiB")
    advise.add_argument("--min-efficiency", type=_share, metavar="SHARE", help="least scaling efficiency, such as 0.8")
    advise.add_argument("--gpus", type=int, metavar="N", help="most ranks")
    advise.set_defaults(run=_advise)
    compare = commands.add_parser(
        "compare",
        help="compare two sweeps, or two settings of one, cell by cell",
        description="Prints what sets the environments apart, then for each cell the step time of the second side over "
        "the first's, with its interval, and a verdict: faster, slower, same, or cannot tell and how many launches "
        "would.",
        epilog=COMPARISONS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="two places of records (or mlflow:RUN_ID), or one --between"
    )
    compare.add_argument("--mlflow", metavar="URI", help="the store of mlflow:RUN_ID; default: sqlite:///mlflow.db")
    compare.add_argument(
        "--between", type=_two_values, metavar="KNOB=A,B", help="compare cells of one place that differ in this alone"
    )
    compare.add_argument(
        "--same", type=float, default=2.0, metavar="PERCENT", help="what counts as the same step time; default: 2"
    )
    compare.set_defaults(run=_compare)
    _add_noise(commands.add_parser("noise", help="say how small a change so many launches can find"))
    _add_history(commands.add_parser("history", help="say where in a row of sweeps a cell became slower or faster"))
    gate = commands.add_parser(
        "gate",
        help="hold what a sweep counted against a committed baseline",
        description="Compares what is counted and never timed (collectives, bytes, buckets, model state, peak, parity, "
        "launches) with a baseline, and prints each difference. Measured by experiment=exact; make gate does both.",
        epilog=GATES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    gate.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="records, as for report")
    gate.add_argument("--baseline", type=Path, required=True, metavar="FILE", help="what was accepted")
    gate.add_argument("--accept", type=_reason, metavar="REASON", help="make this the baseline, and say why")
    gate.set_defaults(run=_gate)
    return found


def _add_noise(noise: argparse.ArgumentParser) -> None:
    noise.description = (
        "From launches of the same code: the smallest change of a cell's step time that so many launches a side find "
        "(95 % interval, in four of five comparisons), and the launches that a change of so many per cent takes."
    )
    noise.epilog, noise.formatter_class = NOISE, argparse.RawDescriptionHelpFormatter
    noise.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="records, as for report")
    noise.add_argument("--out", type=Path, metavar="FILE", help="keep it, as FILE.json or FILE.csv")
    noise.set_defaults(run=_noise)


def _add_history(history: argparse.ArgumentParser) -> None:
    history.description = (
        "Looks for change points in the step time of each cell, over sweeps of the same hardware in the order of time. "
        "A sweep is one point, so a change shows only some sweeps later."
    )
    history.epilog, history.formatter_class = HISTORY, argparse.RawDescriptionHelpFormatter
    history.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="sweeps' folders, or a folder of them")
    history.add_argument(
        "--same", type=float, default=2.0, metavar="PERCENT", help="what counts as the same step time; default: 2"
    )
    history.set_defaults(run=_history)


def _add_store(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--mlflow", metavar="URI", help="read an MLflow experiment, or mlflow:RUN_ID; default: sqlite:///mlflow.db"
    )
    command.add_argument("--experiment", metavar="NAME", help="the experiment to read; default: ddp-zero-bench")


def _load(paths: Sequence[Path], uri: str | None, experiment: str | None = None) -> Loaded:
    from analysis.mlflow_store import load_places

    return load_places(paths, uri, experiment)


def _bytes(text: str) -> int:
    from bench.sizes import size_bytes

    try:
        return size_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; valid: such as 16GiB or 500MB") from error


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid; valid: from 0 to 1, such as 0.8")
    return value


def _reason(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; valid: why the numbers changed, in a line")
    return " ".join(text.split())


def _two_values(text: str) -> tuple[str, tuple[str, str]]:
    knob, _, values = text.partition("=")
    first, _, second = values.partition(",")
    if not (knob and first and second) or "," in second:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid; valid: KNOB=A,B such as engine=torch,native")
    return knob, (first, second)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, or 2 with one line on stderr if it could not be done."""
    asked = parser().parse_args(arguments)
    from analysis.compare import NothingToCompare
    from analysis.exact_gate import GateError
    from analysis.load import NoRecords

    try:
        code: int = asked.run(asked)
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


def _report(asked: argparse.Namespace) -> int:
    from analysis.collectives import fit_rows
    from analysis.load import frame
    from analysis.report import write_report
    from analysis.terminal import print_summary
    from analysis.units import size

    found = _load(asked.paths, asked.mlflow, asked.experiment)
    table = frame(found.records)
    written = write_report(
        found.records, asked.out or _home(asked.paths), found.warnings, table=table, gpu_memory_bytes=asked.gpu_memory
    )
    print_summary(
        table,
        written,
        found.warnings,
        by_size=fit_rows(found.records, table),
        models=written.fits,
        gpu_memory=size(asked.gpu_memory) if asked.gpu_memory else "",
    )
    return 0


def _advise(asked: argparse.Namespace) -> int:
    from analysis.advise import Limits, advise, lines
    from analysis.load import frame

    found = _load(asked.paths, asked.mlflow, asked.experiment)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    limits = Limits(memory_bytes=asked.memory, efficiency=asked.min_efficiency, gpus=asked.gpus)
    given = advise(found.records, frame(found.records), limits)
    print("\n\n".join("\n".join(lines(advice)) for advice in given))
    return 0 if any(advice.tied for advice in given) else 1


def _compare(asked: argparse.Namespace) -> int:
    from analysis import compare

    places, margin = (1 if asked.between else 2), asked.same / 100
    if len(asked.paths) != places or not margin > 0:
        need = "one PATH with --between" if asked.between else "two PATHs, or one and --between KNOB=A,B"
        raise compare.NothingToCompare(f"compare needs {need}, and --same above 0")
    sets = [_load([path], asked.mlflow) for path in asked.paths]
    if asked.between:
        knob, values = asked.between
        pairs, alone = compare.pair_values(sets[0].records, knob, values)
        sides = values
    else:
        knob = None
        pairs, alone = compare.pair_sets(sets[0].records, sets[1].records)
        sides = ("first", "second")
    for warning in (line for found in sets for line in found.warnings):
        print(f"warning: {warning}", file=sys.stderr)
    outcomes = [compare.compare(pair, margin) for pair in pairs]
    compare.show(outcomes, alone, sides, knob=knob, margin=margin, out=_console())
    return 1 if compare.failed(outcomes) else 0


def _noise(asked: argparse.Namespace) -> int:
    from analysis import noise
    from analysis.compare import NothingToCompare
    from analysis.load import load

    if asked.out and asked.out.suffix not in (".json", ".csv"):
        raise NothingToCompare(f"--out {asked.out} is not valid; valid: a name that ends in .json or .csv")
    records = load(asked.paths)
    found, warnings = noise.floors(records.records)
    for warning in (*records.warnings, *warnings):
        print(f"warning: {warning}", file=sys.stderr)
    out = _console()
    out.print(noise.table(found, records.records))
    if not all(entry.interleaved for entry in found):
        out.print("*: pairs of launches that follow each other, not of one round")
    if asked.out:
        noise.write(found, records.records, asked.out)
        out.print(f"kept in {asked.out}", markup=False, soft_wrap=True)
    return 0


def _history(asked: argparse.Namespace) -> int:
    from analysis import history
    from analysis.compare import NothingToCompare
    from analysis.load import load

    if not asked.same > 0:
        raise NothingToCompare(f"--same {asked.same:g} is not valid; valid: per cent above 0")
    records = load(asked.paths)
    for warning in records.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    found = history.histories(records.records, asked.same / 100)
    out = _console()
    out.print(history.table(found))
    for line in history.summary(found, asked.same / 100):
        out.print(line, markup=False, soft_wrap=True)
    return int(any(entry.verdict == "slower" for entry in found))


def _console() -> Console:
    """Of a terminal's width, or of one at which no table is cropped."""
    from rich.console import Console

    from analysis.terminal import PIPE_WIDTH

    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = PIPE_WIDTH
    return out


def _gate(asked: argparse.Namespace) -> int:
    from analysis import exact_gate
    from analysis.load import load

    found = load(asked.paths)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    now = exact_gate.measured(found.records, asked.accept or "")
    old = exact_gate.read(asked.baseline) if asked.baseline.exists() or asked.accept is None else None
    differences = exact_gate.differences(old, now) if old else []
    out = _console()
    if old:
        exact_gate.show(differences, old, now, out)
    if asked.accept is None:
        if differences:
            again = shlex.join(["gate", *map(str, asked.paths), "--baseline", str(asked.baseline)])
            print(f'to accept this on purpose: python -m analysis {again} --accept "REASON"')
        return exact_gate.exit_code(differences)
    if differences or old is None:
        exact_gate.write(asked.baseline, exact_gate.accept(old, now))
        print(f"accepted: {asked.baseline}")
    return 0


def _home(paths: list[Path]) -> Path:
    """Where a report goes if nobody says: beside the records of the one folder that was named."""
    if len(paths) != 1 or not paths[0].is_dir():
        return Path("report")
    return paths[0].parent if paths[0].resolve().name == "records" else paths[0]


if __name__ == "__main__":
    sys.exit(main())
