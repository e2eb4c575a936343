"""Attribution of step time to its parts, and whether two methods agree."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from results.launches import Launch, in_periods, shared_rounds
from results.updates import Updates


@dataclass(frozen=True)
class Spread:
    """A value and the range in which its samples lie."""

    value: float
    low: float
    high: float


RESOLUTION = 0.02
"""Share of a step by which the parts that it is attributed to may be off."""


@dataclass(frozen=True)
class StepParts:
    """The parts of one profiled step of one rank. From ``compute_s`` to ``host_s`` the parts exclude each other."""

    step_s: float
    """By the clock that times unprofiled steps."""
    compute_s: float
    """Forward and backward."""
    exposed_s: float
    """Communication, every rank having called it, and no computation."""
    straggler_s: float
    """The same, while some rank had not called it."""
    optimizer_s: float
    """The update."""
    data_s: float
    """Making the batch, which timed steps find ready; with ``data=loader``, waiting for it."""
    host_s: float
    """The remainder: Python, and kernel launches."""
    communication_s: float
    """All communication, exposed or overlapped."""
    overlapped_s: float
    """Communication during which computation ran."""

    @property
    def parts_s(self) -> dict[str, float]:
        names = ("compute", "exposed", "straggler", "optimizer", "data", "host")
        return {name: getattr(self, f"{name}_s") for name in names}


@dataclass(frozen=True)
class Attribution:
    """Attribution of step time, from a profiled launch and from launches without communication."""

    steps: list[list[StepParts]] = field(default_factory=list)
    """Of each rank; from the profiled launch."""
    straggler_unknown: str = ""
    """Why start skew cannot be separated from transfer; all waiting is then ``exposed_s``. Empty if it can."""
    unprofiled: str = ""
    """Why there are no ``steps``."""
    silent: list[Launch] = field(default_factory=list)
    """Launches without communication, one per timed launch (fake process group)."""
    not_silenced: str = ""
    """Why there are no launches without communication."""
    period: int = 1
    """Steps per period (``local_steps``); ``steps`` has whole periods."""
    updates: list[Updates] = field(default_factory=list)
    """Of each rank, for the profiled steps."""

    def profiled_s(self) -> Spread | None:
        """Exposed communication and waiting for stragglers, mean over ranks: median and range over profiled periods."""
        steps = [
            statistics.fmean(part.exposed_s + part.straggler_s for part in ranks)
            for ranks in zip(*self.steps, strict=True)
        ]
        waits = in_periods(steps, self.period) if steps else []
        return Spread(statistics.median(waits), min(waits), max(waits)) if waits else None

    def removed_s(self, launches: list[Launch]) -> Spread | None:
        """The same without a profiler: how much longer a step takes (mean over ranks) than where nothing is sent.

        The wait for data is left out: a loader reads on while ranks communicate, so the wait hides what that costs.
        Median over rounds; the range is from quartile to quartile of periods, in any round.
        """
        pairs = shared_rounds(launches, self.silent)
        quartiles = [(sent.rank_quartiles_s(), silent.rank_quartiles_s()) for sent, silent in pairs]
        if not quartiles:
            return None
        return Spread(
            statistics.median(sent[1] - silent[1] for sent, silent in quartiles),
            min(sent[0] - silent[2] for sent, silent in quartiles),
            max(sent[2] - silent[0] for sent, silent in quartiles),
        )

    def unattributed(self) -> float:
        """Largest share of a rank's median step that its parts miss or count twice."""
        gaps = [[abs(1 - sum(part.parts_s.values()) / part.step_s) for part in steps] for steps in self.steps if steps]
        return max(map(statistics.median, gaps), default=0.0)

    def disagrees(self, launches: list[Launch]) -> bool:
        """Whether parts do not add up to the step, or the two ways to exposed communication lie apart, by over 2 %.

        They lie apart where their ranges do, by that share of a profiled step.
        """
        one, other = self.profiled_s(), self.removed_s(launches)
        if self.unattributed() > RESOLUTION:
            return True
        if one is None or other is None:
            return False
        step_s = statistics.median(
            period_s for steps in self.steps for period_s in in_periods([part.step_s for part in steps], self.period)
        )
        return max(one.low - other.high, other.low - one.high) > RESOLUTION * step_s
