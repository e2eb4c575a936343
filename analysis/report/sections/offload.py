"""Offload: model state on both sides, what is copied between them, and what it costs compared with none."""

from __future__ import annotations

from analysis.metrics import time
from analysis.metrics.counterparts import counterparts
from analysis.metrics.measured import Measured
from analysis.metrics.offload import Offloaded
from analysis.metrics.rounds import ratio, samples
from analysis.report.model.content import Content
from analysis.report.model.section import ListItem, Points, Section, Value, numbers
from analysis.table.panels import describe
from analysis.text import units
from analysis.text.prose import capital

SAME_MEMORY = (
    "On a CPU, host and device are the same memory: offload saves none there, and the host's copies add to the peak."
)


def section(content: Content) -> Section:
    """A row for each configuration with offload."""
    cells = content.where(lambda cell: cell.is_ok and cell.memory.offloaded is not None)
    same = any(cell.memory.offloaded.host_is_device for cell in cells if cell.memory.offloaded)
    lines = [line for cell, other in pairs(content) if (line := compared(content, cell, other))]
    return Section(
        "Offload",
        "offload",
        prose=[SAME_MEMORY] if same else [],
        lists=[Points([ListItem(line) for line in lines])] if lines else [],
        tables=content.cell_table(
            cells,
            row,
            numbers(
                *("device (MiB)", "host (MiB)", "to the host (MiB)", "to the device (MiB)", "update (ms)", "step (ms)")
            ),
        ),
        notes=[
            "Model state per rank between backward and update, and bytes copied per rank and step; in brackets the "
            "prediction. Update: median over launches, of the slowest rank. fully_shard and DeepSpeed also copy in "
            f"forward and backward, so compare steps. By kind: summary.csv. {content.intervals}"
        ]
        if cells
        else [],
    )


def row(cell: Measured) -> list[Value]:
    host, step = _host(cell), cell.step_time_s
    copied = host.copied_predicted
    return [
        _compared(cell.memory.state_bytes, cell.memory.predicted_bytes),
        _compared(host.state_bytes, host.predicted_bytes),
        _compared(host.to_host_bytes, copied.to_host if copied else None),
        _compared(host.to_device_bytes, copied.to_device if copied else None),
        Value(units.ms(cell.update_s)),
        Value(units.ms(step.value), units.interval(step.low, step.high, 1e3)),
    ]


def pairs(content: Content) -> list[tuple[Measured, Measured]]:
    """Configurations with offload, each with the same configuration of its sweep without it."""
    cells = content.where(lambda cell: cell.is_ok)
    without = {id(cell.record): cell for cell in cells if cell.memory.offloaded is None}
    others = counterparts([cell.record for cell in cells], ["offload"], lambda other: id(other) in without)
    return [
        (cell, without[id(other)])
        for cell, other in zip(cells, others, strict=True)
        if other and cell.memory.offloaded is not None
    ]


def compared(content: Content, cell: Measured, other: Measured) -> str:
    """What offload changes about the same configuration without it."""
    parts = []
    if cell.memory.state_bytes is not None and other.memory.state_bytes is not None:
        saved = other.memory.state_bytes - cell.memory.state_bytes
        parts.append(f"{units.size(abs(saved))} {'less' if saved >= 0 else 'more'} model state on the device")
    if cell.memory.peak_bytes is not None and other.memory.peak_bytes is not None:
        change = cell.memory.peak_bytes - other.memory.peak_bytes
        higher = "higher" if change > 0 else "lower"
        parts.append(f"a peak that is {units.size(abs(change))} {higher}" if change else "the same peak")
    if step := _step_ratio(cell, other):
        parts.append(f"a step that takes {step}")
    if cell.update_s > 0 and other.update_s > 0:
        parts.append(f"an update that takes {units.number(cell.update_s / other.update_s)} times as long")
    names = [name for name in content.names if name != "offload"]
    listed = ", ".join(parts)
    return capital(f"{describe(cell.settings, [*names, 'offload'])}, compared with none: {listed}.") if parts else ""


def _step_ratio(cell: Measured, other: Measured) -> str:
    """Step time over that of ``other``: by round where rounds are shared; empty without launches."""
    above, below, paired = samples(cell.record, other.record, lambda _, launch: time.step_time_s(launch))
    if not above or not below:
        return ""
    times = ratio(above, below, paired=paired)
    ends = units.interval(times.low, times.high)
    return f"{units.number(times.value)} times as long" + (f" ({units.percent(times.level)} CI {ends})" if ends else "")


def _host(cell: Measured) -> Offloaded:
    assert cell.memory.offloaded, "the section has configurations with offload only"
    return cell.memory.offloaded


def _compared(measured: float | None, predicted: float | None) -> Value:
    return Value(units.mib(measured), f"({units.mib(predicted)})" if units.is_finite(predicted) else "")
