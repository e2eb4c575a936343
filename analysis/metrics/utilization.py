"""Model FLOPs utilization against a measured ceiling, and the energy of a step.

MFU is that of PaLM (Chowdhery et al. 2022, appendix B): operations that the model needs, per second, over what the
device can do. What activation checkpointing computes again counts in HFU only (Korthikanti et al. 2023). The
denominator is no data sheet's: it is the rate that the cell's ranks reached in matrix products alone, on this machine,
all at once.
"""

from __future__ import annotations

from math import nan
from statistics import median

from analysis.statistics.medians import NOTHING, Interval
from results.record import Record, world_size


def utilization(record: Record, throughput_per_s: Interval) -> Interval:
    """MFU: a rank's model FLOPs per second over its ceiling, a fraction; NaN where either was not counted."""
    return _share(record, throughput_per_s, record.model.flops_per_unit if record.model else 0.0)


def hardware_utilization(record: Record, throughput_per_s: Interval) -> Interval:
    """HFU: the same with the operations that activation checkpointing computes again."""
    model = record.model
    if model is None or not model.flops_per_unit or record.config.get("checkpointing_budget") is not None:
        return NOTHING  # with a budget, the compiler chooses what is computed again, and does not say what
    return _share(record, throughput_per_s, model.flops_per_unit + model.recomputed_flops_per_unit)


def _share(record: Record, throughput_per_s: Interval, flops_per_unit: float) -> Interval:
    if not flops_per_unit or record.ceiling is None or not throughput_per_s.launches:
        return NOTHING
    factor = flops_per_unit / (world_size(record) * record.ceiling.flops_per_s)
    return Interval(
        factor * throughput_per_s.value,
        factor * throughput_per_s.low,
        factor * throughput_per_s.high,
        throughput_per_s.level,
        throughput_per_s.launches,
    )


def joules_per_step(record: Record) -> float:
    """Median over launches; NaN where it was not counted. Of all GPUs, or of all processor packages without a GPU.

    A simulated cell has none: its one rank's joules are not those of the world that it stands for.
    """
    if record.resolved.get("simulated"):
        return nan
    name = "gpu_energy_j" if record.resolved.get("device") == "cuda" else "cpu_energy_j"
    counted = [launch.condition_per_step(name) for launch in record.launches]
    joules = [value for value in counted if value is not None]
    return median(joules) if joules else nan
