"""Steps and time to ``target_loss``, over the launches of a configuration; each launch has a seed of its own."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, nan
from typing import Any

from analysis.statistics import medians
from analysis.statistics.medians import Interval
from results.launches import Launch
from results.record import Record
from results.target import Reached, reached

COLUMNS = [
    *("steps_to_target", "steps_to_target_low", "steps_to_target_high"),
    *("time_to_target_s", "time_to_target_s_low", "time_to_target_s_high", "launches_at_target"),
]

NEVER = Reached(inf, inf)
"""Of a launch that ended before it reached the target: later than any that did."""


@dataclass(frozen=True)
class Target:
    """What the launches of a configuration took to the target."""

    loss: float
    outcomes: list[Reached]
    """Of each launch; ``NEVER`` where it did not reach the target."""
    steps: Interval
    """Median over launches, with its interval; infinite where half of them or more did not reach it."""
    seconds: Interval

    @property
    def count(self) -> int:
        """Launches that reached it."""
        return sum(isfinite(each.seconds) for each in self.outcomes)


def to_target(record: Record) -> Target | None:
    """None where no target was set."""
    loss = record.config.get("target_loss")
    if loss is None:
        return None
    outcomes = [outcome(record, launch) for launch in record.launches if launch.ranks]
    steps = medians.median_interval([each.steps for each in outcomes])
    return Target(loss, outcomes, steps, medians.median_interval([each.seconds for each in outcomes]))


def outcome(record: Record, launch: Launch) -> Reached:
    """What a launch took to the target of its record; ``NEVER`` where it did not reach it."""
    synchronous = record.resolved.get("synchronous", True)
    return reached(launch, record.config["target_loss"], synchronous=synchronous) or NEVER


def seconds_to_target(record: Record, launch: Launch) -> float:
    return outcome(record, launch).seconds


def columns(target: Target | None) -> dict[str, Any]:
    """The columns of a row; NaN for what is infinite."""
    if target is None:
        return {}
    values = {"steps_to_target": target.steps, "time_to_target_s": target.seconds}
    row: dict[str, Any] = {"launches_at_target": target.count}
    for name, interval in values.items():
        ends = {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        row |= {column: nan if value == inf else value for column, value in ends.items()}
    return row
