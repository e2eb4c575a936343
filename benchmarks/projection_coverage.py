"""How often a projection's 90 % band holds the truth: fitted on simulated training at 1, 2 and 4 ranks.

    python -m benchmarks.projection_coverage [--clusters 200] [--page FILE.md]

``tests.simulated_training`` sends every message and shares no code with the projection. Each simulated cluster has
latency, bandwidth, contention and noise of its own, drawn from a seed. Nothing here is timed.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from analysis.projection.curve import curves
from analysis.projection.held_out import Projector
from benchmarks.page import write_table
from results.record import Record
from tests.simulated_training import Cluster, slower

STAGES = (0, 3)
FITTED = (1, 2, 4)
PROJECTED = (8, 16, 32)
LAUNCHES, STEPS = 5, 3
ABOUT = __doc__.partition("\n")[0]
HEADS = ("ranks", "cases", "in the 90 % band", "median error", "95th percentile", "worst", "upper over lower")


@dataclass(frozen=True)
class Case:
    """One projection of one cluster."""

    ranks: int
    error: float
    """Absolute, as a share of the true step time."""
    inside: bool
    width: float
    """Upper over lower end of the band."""


def drawn(generator: random.Random) -> Cluster:
    """Half of the clusters have no contention, four of five overlap."""
    return Cluster(
        layers=4,
        alpha_s=10 ** generator.uniform(-5, -3),
        bytes_per_s=10 ** generator.uniform(7.5, 9.3),
        contention=generator.choice([0.0, generator.uniform(0.02, 0.5)]),
        overlap=generator.random() < 0.8,
    )


def disturbed(record: Record, generator: random.Random, deviation: float) -> Record:
    """The record with each launch longer or shorter by a factor of its own, as on a shared machine."""
    launches = [slower(launch, generator.lognormvariate(0, deviation)) for launch in record.launches]
    return replace(record, launches=launches)


def cases(seed: int) -> list[Case]:
    """Of one cluster: each stage at each projected world size."""
    generator = random.Random(seed)
    cluster, deviation = drawn(generator), 10 ** generator.uniform(-2.5, -1.5)
    records = [
        disturbed(cluster.record(stage, ranks, launches=LAUNCHES, steps=STEPS, seed=seed), generator, deviation)
        for stage in STAGES
        for ranks in FITTED
    ]
    projector = Projector(curves(records)[0])
    every = []
    for place, stage in enumerate(STAGES):
        for ranks in PROJECTED:
            (launch,) = cluster.record(stage, ranks, launches=1, steps=STEPS, seed=seed + 10**6).launches
            truth_s, band = statistics.median(launch.step_times_s()), projector.at(place, ranks)
            inside = band.low_s <= truth_s <= band.high_s
            every.append(Case(ranks, abs(band.step_s / truth_s - 1), inside, band.high_s / band.low_s))
    return every


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def markdown(every: Sequence[Case]) -> str:
    by_ranks: dict[int, list[Case]] = defaultdict(list)
    for case in every:
        by_ranks[case.ranks].append(case)
    lines = [
        "| ranks | cases | in the 90 % band | median error | 95th percentile | worst | upper over lower end, median |"
    ]
    lines.append("| ---: " * 7 + "|")
    for ranks, group in by_ranks.items():
        errors = sorted(case.error for case in group)
        cells = [str(ranks), str(len(group)), percent(statistics.mean(case.inside for case in group), 0)]
        cells += [percent(error) for error in (statistics.median(errors), errors[int(0.95 * len(errors))], errors[-1])]
        lines.append(f"| {' | '.join(cells)} | {statistics.median(case.width for case in group):.2f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.projection_coverage", description=ABOUT)
    parser.add_argument("--clusters", type=int, default=200, metavar="N", help="simulated clusters (default: 200)")
    parser.add_argument("--page", type=Path, help="write the table to this Markdown file, after its «## Table»")
    options = parser.parse_args(arguments)
    text = markdown([case for seed in range(options.clusters) for case in cases(seed)])
    print(text)
    if options.page:
        write_table(options.page, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
