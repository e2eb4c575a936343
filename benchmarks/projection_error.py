"""How far projections are off: fitted on small world sizes, predicting larger ones that were measured.

    python -m bench -m experiment=held_out network.rate=5mbit hydra.sweep.dir=results/runs/held_out/5mbit
    python -m benchmarks.projection_error results/runs/held_out/* [--fit 4,8] [--out FILE.json]

Ranks sleep, but what each of them does between sleeps shares this machine's cores, which no projection includes. So a
case counts only if the ranks' own processor time, one after another on the cores, is at most a share of the measured
step (--crowded); others are listed and left out. On two cores ``experiment=held_out`` takes about 25 minutes per link.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analysis.projection.curve import ScalingCurve, curves
from analysis.projection.held_out import HeldOut, Projector, order_kept
from results.read import NoRecords, load
from results.record import Record

CROWDED = 0.1
"""A step of more ranks than cores may have so much of its time in processor time that ranks take turns in."""


@dataclass(frozen=True)
class Case:
    """One prediction, and what was measured."""

    engine: str
    link: str
    label: str
    stage: int
    fitted_to: int
    ranks: int
    predicted_s: float
    measured_s: float
    error: float
    inside: bool
    crowded: float
    """The ranks' own processor time over cores, as a share of the measured step."""

    @property
    def factor(self) -> int:
        return self.ranks // self.fitted_to


def crowded(record: Record) -> float:
    """The median over launches; 0 where the machine does not count processor time."""
    shares = []
    for launch in record.launches:
        used, cores = launch.conditions.get("own_cpu_s"), launch.conditions.get("cpus")
        if used is not None and cores:
            shares.append(used / cores / sum(launch.step_times_s()))
    return statistics.median(shares) if shares else 0.0


def held_out(records: Sequence[Record], largest: int) -> list[tuple[Case, HeldOut]]:
    """Predictions of all world sizes above ``largest``, from those up to it."""
    groups: dict[object, list[ScalingCurve]] = defaultdict(list)
    for curve in curves(records)[0]:
        if len(curve.within(largest).sizes) >= 2 and max(curve.sizes) > largest:
            groups[curve.fabric_key].append(curve)
    cases = []
    for group in groups.values():
        projector = Projector([curve.within(largest) for curve in group])
        for place, curve in enumerate(group):
            for ranks in curve.sizes:
                if ranks > largest:
                    one = HeldOut(
                        projector.at(place, ranks), largest, curve.step_s(ranks).value, curve.relative_error(ranks)
                    )
                    cases.append((_case(one, curve, curve.records[ranks]), one))
    return cases


def _case(one: HeldOut, curve: ScalingCurve, record: Record) -> Case:
    network = record.config["network"]
    link = " ".join(str(network[name]) for name in ("rate", "delay") if network.get(name))
    engine = curve.fabric_key[0]
    error, ranks = one.error, one.projected.ranks
    step_s = one.projected.step_s
    return Case(
        engine,
        link,
        curve.label,
        curve.stage,
        one.fitted_to,
        ranks,
        step_s,
        one.measured_s,
        error,
        one.is_inside,
        crowded(record),
    )


def summary(
    pairs: Sequence[tuple[Case, HeldOut]], most: float, by: Sequence[str] = ("factor",)
) -> list[dict[str, Any]]:
    """Errors, coverage and order for each value of these fields of a case."""
    groups: dict[tuple[Any, ...], list[tuple[Case, HeldOut]]] = defaultdict(list)
    for pair in pairs:
        groups[tuple(getattr(pair[0], name) for name in by)].append(pair)
    rows = []
    for key, group in sorted(groups.items()):
        counted = [pair for pair in group if pair[0].crowded <= most]
        row: dict[str, Any] = dict(zip(by, key, strict=True))
        row |= {"cases": len(counted), "left_out": len(group) - len(counted)}
        if counted:
            errors = [abs(case.error) for case, _ in counted]
            row |= {"median": statistics.median(errors), "worst": max(errors)}
            row["inside"] = sum(case.inside for case, _ in counted)
            row["kept"], row["pairs"] = orders(counted)
        rows.append(row)
    return rows


def orders(pairs: Sequence[tuple[Case, HeldOut]]) -> tuple[int, int]:
    """Pairs of configurations in the predicted order; only those of one link and fit are compared."""
    groups: dict[object, list[HeldOut]] = defaultdict(list)
    for case, one in pairs:
        groups[case.link, case.fitted_to].append(one)
    counts = [order_kept(group) for group in groups.values()]
    return sum(kept for kept, _ in counts), sum(total for _, total in counts)


def markdown(pairs: Sequence[tuple[Case, HeldOut]], most: float) -> str:
    lines = [
        "| link | engine | stage | fitted to | ranks | measured (ms) | predicted (ms) | error | in band | crowded |"
    ]
    lines += ["| --- | --- " + "| ---: " * 8 + "|"]
    for case, _ in pairs:
        note = "" if case.crowded <= most else " (left out)"
        lines.append(
            f"| {case.link} | {case.engine} | {case.stage} | {case.fitted_to} | {case.ranks} "
            f"| {1000 * case.measured_s:.0f} | {1000 * case.predicted_s:.0f} | {100 * case.error:+.1f} % "
            f"| {'yes' if case.inside else 'no'} | {100 * case.crowded:.0f} %{note} |"
        )
    return "\n".join([*lines, "", *table(pairs, most, ("factor",)), "", *table(pairs, most, ("engine", "stage"))])


HEADS = {"factor": "times the fitted size", "engine": "engine", "stage": "stage"}


def table(pairs: Sequence[tuple[Case, HeldOut]], most: float, by: Sequence[str]) -> list[str]:
    """The summary as lines of Markdown."""
    heads = [HEADS[name] for name in by]
    heads += ["cases", "left out", "median error", "worst", "in the 90 % band", "order kept"]
    lines = [f"| {' | '.join(heads)} |", f"|{' ---: |' * len(heads)}"]
    for row in summary(pairs, most, by):
        cells = [str(row[name]) for name in (*by, "cases", "left_out")]
        if "median" in row:
            cells += [f"{100 * row['median']:.1f} %", f"{100 * row['worst']:.1f} %"]
            cells += [f"{row['inside']} of {row['cases']}", f"{row['kept']} of {row['pairs']}"]
        else:
            cells += [""] * 4
        lines.append(f"| {' | '.join(cells)} |")
    return lines


PAGE = """# Errors of projections

Ranks that sleep (`workload=calibrated`) behind emulated links. The model is fitted on the smaller world sizes and
predicts the larger ones, which were measured. A case whose ranks spend more than {most:.0%} of a step in processor time
is left out: they share two cores. **Nothing on this page was measured on a GPU.**

`python -m bench -m experiment=held_out`, then `python -m benchmarks.projection_error`
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.projection_error", description=__doc__.split("\n")[0])
    parser.add_argument("places", nargs="+", type=Path, metavar="PATH", help="folders of sweeps")
    parser.add_argument("--fit", default="4,8", metavar="N,N", help="largest world sizes to fit to (default: 4,8)")
    parser.add_argument("--crowded", type=float, default=CROWDED, help=f"see above (default: {CROWDED})")
    parser.add_argument("--page", type=Path, help="write the tables to this Markdown file")
    parser.add_argument("--out", type=Path, help="keep all cases and the summary, as JSON")
    options = parser.parse_args(arguments)
    try:
        loaded = load(options.places)
    except NoRecords as error:
        parser.error(str(error))
    pairs = [pair for largest in map(int, options.fit.split(",")) for pair in held_out(loaded.records, largest)]
    if not pairs:
        parser.error("no configuration has two world sizes to fit to and a larger one to predict")
    text = markdown(pairs, options.crowded)
    print(text)
    if options.page:
        options.page.parent.mkdir(parents=True, exist_ok=True)
        options.page.write_text(PAGE.format(most=options.crowded) + "\n" + text + "\n", encoding="utf-8")
    if options.out:
        document = {"cases": [asdict(case) for case, _ in pairs], "summary": summary(pairs, options.crowded)}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
