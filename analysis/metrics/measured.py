"""The metrics of one record that the table, the sections and the figures share, computed once."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from math import nan
from typing import Any

from analysis.metrics import scaling_loss, step_parts, time
from analysis.metrics.across_hosts import Across
from analysis.metrics.data_wait import DataWait
from analysis.metrics.memory import Memory, memory
from analysis.metrics.scaling import Efficiency, devices, serial_fraction
from analysis.metrics.target import Target, to_target
from analysis.metrics.traffic import sent_bytes, wire_bytes
from analysis.metrics.utilization import hardware_utilization, joules_per_step, utilization
from analysis.statistics import medians
from analysis.statistics.medians import NOTHING, Interval
from results.invariants import efficiency_violation
from results.record import Record, world_size


@dataclass(frozen=True)
class Measured:
    """One configuration: its record, its settings as columns, and its metrics with their intervals, in SI units."""

    record: Record
    index: int
    """The record's position among those that are reported."""
    settings: Mapping[Hashable, Any]
    """By column: as requested, with ``gpus`` as resolved."""
    step_time_s: Interval
    update_s: float
    """The time of the update within a step: median over launches; NaN without one."""
    throughput_per_s: Interval
    """Units of all ranks; nothing for a simulated configuration."""
    efficiency: Efficiency | None
    """None for a configuration that is not ranked."""
    across: Across | None
    """What crossing hosts costs; None on one host."""
    serial_fraction: Interval
    loss: Mapping[str, float]
    """What scaling loses, by part (``scaling_loss.COLUMNS``), as fractions of a rank's time; empty at the baseline."""
    step: Mapping[str, float]
    """The parts of a profiled step (``step_parts.COLUMNS``)."""
    memory: Memory
    sent_bytes: float | None
    """Per rank and step, as counted."""
    wire_bytes: float
    """Per rank and step, at the network interface."""
    mfu: Interval
    hfu: Interval
    joules_per_step: float
    data_wait: DataWait | None
    """Waiting for a DataLoader; None where batches were ready."""
    target: Target | None
    """Steps and time to ``target_loss``; None where none was set, or nothing was trained."""
    warnings: tuple[str, ...]
    """Ids of verdicts: its record's own, and those that take other records to see."""
    reasons: Mapping[str, str]
    """The observation behind a warning, by its id; a warning may have none."""

    @property
    def world_size(self) -> int:
        return world_size(self.record)

    @property
    def is_ok(self) -> bool:
        return self.record.status == "ok"

    @property
    def is_trained(self) -> bool:
        """Whether its ranks trained, rather than one of them alone for a world that is not there."""
        return any(launch.ranks for launch in self.record.launches) and not self.record.resolved.get("simulated")

    @property
    def is_oversubscribed(self) -> bool:
        return "oversubscribed" in self.warnings

    @property
    def baseline(self) -> Record | None:
        """The baseline of its scaling; None where that is itself or missing."""
        if self.efficiency is None or self.efficiency.baseline_gpus == self.world_size:
            return None
        return self.efficiency.base

    @property
    def parity_error(self) -> float:
        """The larger error of loss and weights; NaN if either is, or if parity was not checked."""
        return self.record.parity.error if self.record.parity else nan

    def launch_throughputs(self) -> list[float]:
        """Throughput of each launch; none of a simulated configuration."""
        if not self.is_trained:
            return []
        return [time.throughput_per_s(self.record, launch) for launch in self.record.launches if launch.ranks]

    @property
    def devices(self) -> float | None:
        return devices(self.record)


def measure(
    record: Record,
    index: int,
    settings: Mapping[Hashable, Any],
    efficiency: Efficiency | None,
    across: Across | None = None,
    waited: DataWait | None = None,
) -> Measured:
    """Compute what a report needs of ``record``; ``efficiency``, ``across`` and ``waited`` depend on other records."""
    timed = [launch for launch in record.launches if launch.ranks]
    trained = [] if record.resolved.get("simulated") else timed  # else of ranks that are not there
    throughput = medians.median_interval([time.throughput_per_s(record, launch) for launch in trained])
    measured = Measured(
        record=record,
        index=index,
        settings=settings,
        step_time_s=medians.median_interval([time.step_time_s(launch) for launch in timed]),
        update_s=statistics.median(map(time.update_time_s, timed)) if timed else nan,
        throughput_per_s=throughput,
        efficiency=efficiency,
        across=across,
        serial_fraction=_serial_fraction(record, efficiency),
        loss=scaling_loss.columns(record, efficiency.base, efficiency.interval.value) if efficiency else {},
        step=step_parts.columns(record),
        memory=memory(record),
        sent_bytes=sent_bytes(record),
        wire_bytes=wire_bytes(record),
        mfu=utilization(record, throughput),
        hfu=hardware_utilization(record, throughput),
        joules_per_step=joules_per_step(record),
        data_wait=waited,
        target=to_target(record) if trained else None,
        warnings=tuple(record.verdicts),
        reasons=record.verdict_reasons,
    )
    if efficiency and (words := efficiency_violation(efficiency.interval.value, efficiency.interval.low)):
        return with_warning(measured, "implausible", words)
    return measured


def with_warning(measured: Measured, name: str, reason: str) -> Measured:
    """The configuration with a warning that takes other records to see, in addition to its record's own."""
    words = "; ".join(filter(None, [measured.reasons.get(name), reason]))
    warnings = tuple(dict.fromkeys([*measured.warnings, name]))
    return replace(measured, warnings=warnings, reasons={**measured.reasons, name: words})


def _serial_fraction(record: Record, efficiency: Efficiency | None) -> Interval:
    """Of strong scaling beyond the baseline."""
    if efficiency is None or record.config.get("scaling") != "strong":
        return NOTHING
    growth = world_size(record) / efficiency.baseline_gpus
    return serial_fraction(efficiency.interval, growth) if growth > 1 else NOTHING
