"""Which configurations reach the target loss first, also where training is not numerically equivalent.

Launches of one round have the same seed, so their times are compared round by round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

from analysis.metrics.measured import Measured
from analysis.statistics.medians import Interval, median_interval
from results.identity import frozen
from results.target import Reached


@dataclass(frozen=True)
class Race:
    """Configurations with one workload and one target."""

    loss: float
    cells: Sequence[Measured]
    """Those with the shortest median time first."""
    behind: Sequence[Interval]
    """Of each, its time over the first one's, median over rounds: exactly 1 for the first itself."""

    @property
    def tied(self) -> list[Measured]:
        """Those whose interval includes 1; one launch leaves none."""
        return [cell for cell, behind in zip(self.cells[1:], self.behind[1:], strict=True) if behind.low <= 1]

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
    exact = Interval(1.0, 1.0, 1.0, 1.0, len(ordered[0].record.launches))
    return Race(loss, ordered, [exact, *(_behind(ordered[0], cell) for cell in ordered[1:])])


def _behind(first: Measured, cell: Measured) -> Interval:
    """Over the rounds of both in which either reached the target; a launch that did not took for ever."""
    assert first.target and cell.target
    ours, theirs = cell.target.by_round, first.target.by_round
    pairs = [(ours[number], theirs[number]) for number in ours.keys() & theirs.keys()]
    return median_interval([_seconds(our) / _seconds(their) for our, their in pairs if our or their])


def _seconds(outcome: Reached | None) -> float:
    return outcome.seconds if outcome else inf
