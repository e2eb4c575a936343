"""Which configurations reach the target loss first, also where training is not numerically equivalent.

Launches of one round of a sweep have the same seed, so their times are compared round by round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

from analysis.advice.ranking import Ranking, itself
from analysis.metrics.measured import Measured
from analysis.metrics.rounds import ratio, samples
from analysis.metrics.target import seconds_to_target
from analysis.statistics.medians import Interval, median_interval
from results.identity import frozen


@dataclass(frozen=True)
class Race:
    """Configurations with one workload and one target."""

    loss: float
    cells: Sequence[Measured]
    """Those with the shortest median time first."""
    ranking: Ranking
    """``behind`` is the time of each over the first one's, median over rounds."""

    @property
    def tied(self) -> list[Measured]:
        """Those that are not measurably later than the first."""
        return [self.cells[at] for at in self.ranking.tied]

    @property
    def is_won(self) -> bool:
        """Whether the first reached the target in more than half of its launches."""
        target = self.cells[0].target
        return target is not None and isfinite(target.seconds.value)


def races(cells: Sequence[Measured]) -> list[Race]:
    """One for each workload and target loss."""
    groups: dict[tuple[str, float], list[Measured]] = {}
    for cell in cells:
        if cell.target:
            groups.setdefault((frozen(cell.settings.get("workload")), cell.target.loss), []).append(cell)
    return [_race(loss, group) for (_, loss), group in groups.items()]


def _race(loss: float, cells: list[Measured]) -> Race:
    ordered = sorted(cells, key=lambda cell: cell.target.seconds.value if cell.target else inf)
    first = ordered[0]
    return Race(loss, ordered, Ranking(0, [itself(first.record), *(_behind(first, cell) for cell in ordered[1:])]))


def _behind(first: Measured, cell: Measured) -> Interval:
    """Over the launches in which either reached the target; one that did not took for ever."""
    ours, theirs, paired = samples(cell.record, first.record, seconds_to_target)
    if not paired:
        return ratio(ours, theirs, paired=False)
    return median_interval([our / their for our, their in zip(ours, theirs, strict=True) if (our, their) != (inf, inf)])
