"""Finds and reads records, and lays them out as one table: a row a cell, bare SI units."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from math import nan
from typing import Any

import pandas as pd

from analysis.metrics import hosts, scaling_loss, step_parts
from analysis.metrics.across_hosts import across
from analysis.metrics.data_wait import COLUMNS as DATA_COLUMNS
from analysis.metrics.data_wait import columns as data_columns
from analysis.metrics.data_wait import data_waits
from analysis.metrics.largest_batch import SEARCH_COLUMNS, search_columns
from analysis.metrics.measured import Measured, measure
from analysis.metrics.memory import COLUMNS as MEMORY_COLUMNS
from analysis.metrics.memory import KINDS, columns
from analysis.metrics.scaling import efficiencies
from analysis.metrics.target import COLUMNS as TARGET_COLUMNS
from analysis.metrics.target import columns as target_columns
from analysis.statistics import medians
from analysis.table import origin
from results.identity import REQUEST_SUFFIX, frozen, hardware, identity, settings_of
from results.record import Record, world_size

AXES = ["engine", "stage", "gpus", "workload", "precision", "bucket_mb", "overlap", "scaling"]
"""Settings that have a column of their own, as requested; empty means the engine's own default."""

COLUMNS = [
    *AXES,
    *["device", "backend", "status", "reason", "verdicts", "parity_error"],
    *["step_time_s", "step_time_s_low", "step_time_s_high", "throughput_per_s", "scaling_efficiency"],
    *["model_state_bytes", "model_state_predicted_bytes", "peak_bytes", "final_loss"],
    *["throughput_per_s_low", "throughput_per_s_high", "scaling_efficiency_low", "scaling_efficiency_high"],
    *["scaling_baseline_gpus", "scaling_cap", "serial_fraction", "serial_fraction_low", "serial_fraction_high"],
    *["hosts", "across_hosts_efficiency", "across_hosts_efficiency_low", "across_hosts_efficiency_high"],
    *["across_hosts_baseline_gpus"],
    *scaling_loss.COLUMNS,
    *["launches", "interval_level"],
    *["model_state_paper_bytes", "transient_predicted_bytes", "sent_predicted_bytes", "sent_bytes", "wire_bytes"],
    *step_parts.COLUMNS,
    *DATA_COLUMNS,
    *["unit", "parameters", "machine_devices"],
    *[f"{kind}_bytes" for kind in KINDS],
    *[f"{kind}_predicted_bytes" for kind in KINDS],
    *MEMORY_COLUMNS,
    "update_s",
    *["mfu", "mfu_low", "mfu_high", "hfu", "ceiling_flops_per_s", "joules_per_step", "joules_per_sample"],
    *SEARCH_COLUMNS,
    *TARGET_COLUMNS,
    *["verdict_reasons", "sweep_id", "cell_id"],
    *origin.COLUMNS,
]
"""Columns of summary.csv, in order (docs/reference/summary_csv.md); other settings that vary follow them."""


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """A row a cell: ``COLUMNS``, then every other setting that varies; sorted so that like stands by like.

    The index is the record's position in ``records``. Of several machines, ``machine`` tells which, as if it were one.
    """
    return tabulate(measure_all(records))


def measure_all(records: Sequence[Record]) -> list[Measured]:
    """The metrics of each record, in order, with the settings that have a column: ``AXES`` and what else varies."""
    named = [settings_of(record) for record in records]
    machines = [hardware(record) for record in records]
    if len(set(machines)) > 1:
        named = [cell | {"machine": machine} for cell, machine in zip(named, machines, strict=True)]
    names = list(dict.fromkeys(name for cell in named for name in cell))
    other = [name for name in names if name not in AXES and len({frozen(cell.get(name)) for cell in named}) > 1]
    if len({identity(cell) for cell in named}) < len(named):  # the same cell in several sweeps
        named = [cell | {"sweep": record.sweep_id} for cell, record in zip(named, records, strict=True)]
        other.append("sweep")
    columns: list[dict[Hashable, Any]] = [
        {axis: cell.get(axis) for axis in AXES}
        | {"gpus": world_size(record)}
        | {_column(name): cell.get(name) for name in other}
        for cell, record in zip(named, records, strict=True)
    ]
    return [
        measure(record, at, settings, efficiency, crossing, waited)
        for at, (record, settings, efficiency, crossing, waited) in enumerate(
            zip(records, columns, efficiencies(list(records)), across(records), data_waits(records), strict=True)
        )
    ]


def tabulate(cells: Sequence[Measured]) -> pd.DataFrame:
    """The table of ``frame``, from what was measured."""
    rows = [row(cell) for cell in cells]
    settings = [str(name) for name in cells[0].settings] if cells else AXES
    other = [name for name in settings if name not in AXES]
    precedence = [name for name in settings if name not in ("gpus", "stage")] + ["gpus", "stage"]
    order = sorted(range(len(rows)), key=lambda at: [_rank(rows[at][name]) for name in precedence])
    table = pd.DataFrame([rows[at] for at in order], index=order, columns=[*COLUMNS, *other])
    for name in ("bucket_mb", "overlap"):
        table[name] = pd.Series([rows[at][name] for at in order], index=order, dtype=object)
    return table


Cell = Mapping[Hashable, Any] | pd.Series
"""A row of the table, by column."""


def each_cell(table: pd.DataFrame) -> Iterator[tuple[int, dict[Hashable, Any]]]:
    """Each row with its record's position, in a fraction of the time of iterrows."""
    names = list(table.columns)
    rows = zip(*(table[name].tolist() for name in names), strict=True)
    return zip(map(int, table.index), (dict(zip(names, values, strict=True)) for values in rows), strict=True)


def varying(table: pd.DataFrame) -> list[str]:
    """The settings that tell the cells of a table apart.

    What goes with the workload (each has one value of it) tells nothing that its name does not, nor does an engine's
    option that goes with the engine.
    """
    keys = table[AXES + [name for name in table.columns if name not in COLUMNS]].map(frozen)
    names = [str(name) for name in keys if keys[name].nunique() > 1]
    return [name for name in names if name in AXES or not any(_follows(keys, name, owner) for owner in _owners(name))]


def _owners(name: str) -> list[str]:
    return ["workload", "engine"] if name.startswith("engine.") else ["workload"]


def _follows(keys: pd.DataFrame, name: str, owner: str) -> bool:
    return keys[owner].nunique() > 1 and bool((keys.groupby(owner)[name].nunique() == 1).all())


def row(cell: Measured) -> dict[Hashable, Any]:
    """One cell in SI units; NaN or None where there is nothing to say."""
    record, memory = cell.record, cell.memory
    step, throughput = cell.step_time_s, cell.throughput_per_s
    values: dict[Hashable, Any] = {
        **cell.settings,
        "device": record.resolved.get("device", record.config.get("device")),
        "backend": record.resolved.get("backend", record.config.get("backend")),
        "status": record.status,
        "reason": " ".join(record.reason.split()),
        "verdicts": ";".join(cell.warnings),
        "parity_error": cell.parity_error,
        "step_time_s": step.value,
        "step_time_s_low": step.low,
        "step_time_s_high": step.high,
        "throughput_per_s": throughput.value,
        "throughput_per_s_low": throughput.low,
        "throughput_per_s_high": throughput.high,
        "launches": len(record.launches),
        "interval_level": medians.attainable(len(record.launches)) if len(record.launches) > 1 else nan,
        "model_state_bytes": memory.state_bytes,
        "model_state_predicted_bytes": memory.predicted_bytes,
        "peak_bytes": memory.peak_bytes,
        "model_state_paper_bytes": memory.paper_bytes,
        "transient_predicted_bytes": memory.transient_bytes,
        "sent_predicted_bytes": memory.sent_bytes,
        "sent_bytes": cell.sent_bytes,
        "wire_bytes": cell.wire_bytes,
        "final_loss": record.final_loss if cell.is_trained else None,
        "unit": record.model.unit if record.model else None,
        "parameters": record.model.parameter_count if record.model else None,
        "machine_devices": cell.devices,
        "sweep_id": record.sweep_id,
        "cell_id": record.cell_id,
    }
    joules = cell.joules_per_step
    values |= {
        "update_s": cell.update_s,
        "mfu": cell.mfu.value,
        "mfu_low": cell.mfu.low,
        "mfu_high": cell.mfu.high,
        "hfu": cell.hfu.value,
        "ceiling_flops_per_s": record.ceiling.flops_per_s if record.ceiling else nan,
        "joules_per_step": joules,
        "joules_per_sample": joules / record.global_batch if joules == joules else nan,
        "verdict_reasons": " | ".join(f"{name}: {reason}" for name, reason in cell.reasons.items()),
    }
    values |= {f"{kind}_bytes": (memory.state or {}).get(kind, None if memory.state is None else 0) for kind in KINDS}
    values |= {f"{kind}_predicted_bytes": (memory.predicted or {}).get(kind) for kind in KINDS}
    return (
        values
        | search_columns(record)
        | columns(memory)
        | dict(cell.step)
        | origin.columns(record)
        | scaling_columns(cell)
        | host_columns(cell)
        | data_columns(cell.data_wait)
        | target_columns(cell.target)
    )


def host_columns(cell: Measured) -> dict[str, Any]:
    """The hosts of a configuration, and what crossing them costs."""
    values: dict[str, Any] = {"hosts": hosts.count(cell.record)}
    if cell.across is None:
        return values
    interval = cell.across.interval
    return values | {
        "across_hosts_efficiency": interval.value,
        "across_hosts_efficiency_low": interval.low,
        "across_hosts_efficiency_high": interval.high,
        "across_hosts_baseline_gpus": world_size(cell.across.partner),
    }


def scaling_columns(cell: Measured) -> dict[str, Any]:
    """Scaling efficiency, what its loss is made of and, of strong scaling, the serial fraction."""
    if cell.efficiency is None:
        return {}
    efficiency, serial = cell.efficiency.interval, cell.serial_fraction
    values: dict[str, Any] = {
        "scaling_efficiency": efficiency.value,
        "scaling_efficiency_low": efficiency.low,
        "scaling_efficiency_high": efficiency.high,
        "scaling_baseline_gpus": cell.efficiency.baseline_gpus,
        "scaling_cap": cell.efficiency.cap,
    }
    if serial.launches:
        ends = {"serial_fraction_low": serial.low, "serial_fraction_high": serial.high}
        values |= {"serial_fraction": serial.value} | ends
    return values | dict(cell.loss)


def _column(name: str) -> str:
    """The column of a setting that varies; device and backend have one already, for what they resolved to."""
    return name + REQUEST_SUFFIX if name in COLUMNS else name


def _rank(value: Any) -> tuple[bool, bool, Any]:
    """A sort key for values of mixed types: what is missing, then numbers in order, then words."""
    is_number = isinstance(value, int | float)
    return value is not None, not is_number, value if is_number else str(value)
