"""The parts of scaling loss: parts of profiled steps, as shares of a rank's time in the larger world.

A unit of work costs c(N) = N/X(N) rank-seconds, so that E(N) = c(N0)/c(N) and the loss 1 - E is (c(N) - c(N0))/c(N). A
part that takes p seconds of a profiled step, mean over ranks and steps, costs N·p/(G·u) of them: G samples of u units
are a step's work. A part's share of the loss is what it costs more at N than at N0, over c(N).

Timed steps have the part ``data`` with ``data=loader`` only. Else they find their batch ready, and making it in a
profiled step is no part of the measured loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from statistics import median

from analysis.metrics import step_parts, time
from results.record import Record, world_size

COLUMNS = [*(f"efficiency_loss_{part}" for part in step_parts.PARTS), "efficiency_loss_unexplained"]


def parts_of(*records: Record) -> Sequence[str]:
    """The parts that timed steps of any of these configurations have."""
    waits = any(record.config.get("data") == "loader" for record in records)
    return [part for part in step_parts.PARTS if part != "data" or waits]


def columns(record: Record, base: Record, efficiency: float) -> dict[str, float]:
    """A cell's columns, fractions of a rank's time that add up to 1 - efficiency; NaN where either was not profiled.

    NaN also for a part that its timed steps do not have.
    """
    if world_size(record) == world_size(base):
        return dict.fromkeys(COLUMNS, nan)
    after, before = (_cost_s(side) for side in (record, base))
    cost_s = unit_cost_s(record)
    shares = {f"efficiency_loss_{part}": (after[part] - before[part]) / cost_s for part in after}
    unexplained = 1 - efficiency - sum(shares.values())
    return dict.fromkeys(COLUMNS, nan) | shares | {"efficiency_loss_unexplained": unexplained}


def unit_cost_s(record: Record) -> float:
    """Rank-seconds per unit of work in timed steps: c(N)."""
    return world_size(record) / median(time.throughput_per_s(record, launch) for launch in record.launches)


def profiled_over_timed(record: Record) -> float:
    """Ratio of profiled to timed step time; NaN where none were profiled."""
    return sum(_cost_s(record).values()) / unit_cost_s(record)


def _cost_s(record: Record) -> dict[str, float]:
    """Rank-seconds per unit that each part takes in profiled steps; NaN where none were."""
    units_per_step = record.global_batch * record.model.units_per_sample if record.model else nan
    step = step_parts.columns(record)
    return {part: world_size(record) * step[f"{part}_part_s"] / units_per_step for part in parts_of(record)}
