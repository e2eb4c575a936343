"""Who is fastest, and who is tied with it: throughput over all ranks, compared round by round.

A configuration is *tied* with the fastest unless the whole interval of the fastest's throughput over its own lies above
1. Within a run the ratio is the median of the rounds' ratios, as ``analysis.comparison.compare`` has it; whether two
intervals of throughput overlap is no test of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.metrics import time
from analysis.metrics.rounds import ratio, samples
from analysis.statistics.medians import Interval
from analysis.text.units import is_finite
from results.record import Record


@dataclass(frozen=True)
class Ranking:
    """The fastest of some configurations, and how far each is behind it; positions are those of the input."""

    fastest: int
    behind: list[Interval]
    """The fastest's throughput over each one's own: exactly 1 for itself."""

    @property
    def tied(self) -> list[int]:
        """Those that are not measurably slower than the fastest, without itself."""
        return [at for at, behind in enumerate(self.behind) if at != self.fastest and is_tied(behind)]

    @property
    def undecided(self) -> list[int]:
        """Those that one launch leaves without an interval."""
        return [at for at, behind in enumerate(self.behind) if at != self.fastest and not is_finite(behind.low)]

    def level_text(self) -> str:
        """The lowest level at which others were compared; empty where none could be."""
        others = [behind for at, behind in enumerate(self.behind) if at != self.fastest and is_finite(behind.low)]
        return min(others, key=lambda interval: interval.level).level_text() if others else ""


def itself(record: Record) -> Interval:
    """The ratio of a configuration to itself: exactly 1."""
    return Interval(1.0, 1.0, 1.0, 1.0, len(record.launches))


def is_tied(behind: Interval) -> bool:
    """Whether it is not measurably slower. One launch leaves no interval: then only the fastest itself is."""
    return behind.value == behind.low == behind.high == 1 or behind.low <= 1  # False for NaN


def rank(records: Sequence[Record], throughputs: Sequence[float]) -> Ranking:
    """Rank configurations by throughput, the median over launches."""
    fastest = max(range(len(records)), key=lambda at: throughputs[at])
    first = records[fastest]
    behind = [itself(first) if at == fastest else throughput_ratio(first, each) for at, each in enumerate(records)]
    return Ranking(fastest, behind)


def throughput_ratio(first: Record, second: Record) -> Interval:
    """Throughput of the first over the second's."""
    above, below, paired = samples(first, second, time.throughput_per_s)
    return ratio(above, below, paired=paired)
