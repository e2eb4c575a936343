"""The table of configurations: time, scaling, memory, parity and warnings of each."""

from __future__ import annotations

from analysis.metrics.measured import Measured
from analysis.report.model.content import DEFINITIONS, Content
from analysis.report.model.section import Column, Section, Table, TableRow, Value, numbers, settings, words
from analysis.report.sections.scaling_loss import how_to_attribute
from analysis.statistics.medians import Interval
from analysis.text import units

BASELINE = "baseline"


def section(content: Content) -> Section:
    """A row per configuration that trained; units per second in the workload's unit."""
    nouns = content.trained["unit"].dropna().unique()
    unit = f"{nouns[0]}s" if len(nouns) == 1 else "units"
    columns = [
        *settings(content.headings),
        Column("status", "status"),
        *numbers(f"{unit}/s", "step (ms)", "efficiency", "MFU", "state (MiB)", "predicted (MiB)"),
        *numbers("peak (MiB)", "parity error"),
        *words("warnings"),
    ]
    rows = [row(content, cell) for cell in content.cells()]
    notes = [
        content.intervals,
        "State and peak: the rank with the most. Efficiency: throughput per rank relative to the baseline, the "
        "smallest world size of the same setting. MFU: model FLOP/s over the matrix-product rate measured here.",
        how_to_attribute(content),
        f"Raw values in SI units: summary.csv. {DEFINITIONS}",
    ]
    tables = [Table(columns, rows)] if rows else []
    return Section("Configurations", "configurations", tables=tables, notes=[note for note in notes if note])


def row(content: Content, cell: Measured) -> TableRow:
    parity, memory = units.error(cell.parity_error), cell.memory
    failed = cell.record.status == "parity_failed" and parity == units.MISSING
    values = [
        *content.settings(cell),
        Value(units.spoken(cell.record.status)),
        with_interval(cell.throughput_per_s, 1, digits=4),
        with_interval(cell.step_time_s, 1e3),
        efficiency(cell),
        Value(units.percent(cell.mfu.value, 3)),
        Value(units.mib(memory.state_bytes)),
        Value(units.mib(memory.predicted_bytes)),
        Value(units.mib(memory.peak_bytes)),
        Value("NaN" if failed else parity),
        Value(", ".join(map(units.spoken, filter(None, cell.warnings)))),
    ]
    return TableRow(values, "wrong" if not cell.is_ok else "crowded" if cell.is_oversubscribed else "ok")


def with_interval(interval: Interval, factor: float, digits: int = 3) -> Value:
    value = interval.value * factor
    return Value(units.number(value, digits), units.interval(interval.low, interval.high, factor))


def efficiency(cell: Measured) -> Value:
    """Scaling efficiency; ``baseline`` for the configuration that others are measured against."""
    if cell.efficiency is None:
        return Value(units.MISSING)
    if cell.baseline is None:
        return Value(BASELINE)
    interval = cell.efficiency.interval
    return Value(units.percent(interval.value, 3), units.interval(interval.low, interval.high, 100))
