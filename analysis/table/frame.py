"""Finds and reads records, and lays them out as one table: a row a cell, bare SI units."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from math import nan
from typing import Any

import pandas as pd

from analysis.metrics import scaling_loss, step_parts, time
from analysis.metrics.largest_batch import SEARCH_COLUMNS, search_columns
from analysis.metrics.memory import COLUMNS as MEMORY_COLUMNS
from analysis.metrics.memory import KINDS, columns, memory
from analysis.metrics.scaling import Efficiency, devices, efficiencies, serial_fraction
from analysis.metrics.traffic import sent_bytes, wire_bytes
from analysis.metrics.utilization import joules_per_step, utilization
from analysis.statistics import medians
from results.identity import ASKED, frozen, hardware, identity, knobs
from results.invariants import efficiency_violation
from results.record import Record, world_size

AXES = ["engine", "stage", "gpus", "workload", "precision", "bucket_mb", "overlap", "scaling"]
"""Knobs that have a column of their own, as they were asked for; empty means the engine's own default."""

COLUMNS = [
    *AXES,
    *["device", "backend", "status", "reason", "verdicts", "parity_error"],
    *["step_time_s", "step_time_s_low", "step_time_s_high", "throughput_per_s", "scaling_efficiency"],
    *["model_state_bytes", "model_state_predicted_bytes", "peak_bytes", "final_loss"],
    *["throughput_per_s_low", "throughput_per_s_high", "scaling_efficiency_low", "scaling_efficiency_high"],
    *["scaling_baseline_gpus", "scaling_cap", "serial_fraction", "serial_fraction_low", "serial_fraction_high"],
    *scaling_loss.COLUMNS,
    *["launches", "interval_level"],
    *["model_state_paper_bytes", "transient_predicted_bytes", "sent_predicted_bytes", "sent_bytes", "wire_bytes"],
    *step_parts.COLUMNS,
    *["unit", "parameters", "devices"],
    *[f"{kind}_bytes" for kind in KINDS],
    *[f"{kind}_predicted_bytes" for kind in KINDS],
    *MEMORY_COLUMNS,
    *["mfu", "mfu_low", "mfu_high", "ceiling_flops_per_s", "joules_per_step", "joules_per_sample"],
    *SEARCH_COLUMNS,
    *["verdict_reasons", "sweep_id", "cell_id"],
]
"""Columns of summary.csv, in order; other knobs that vary follow them."""


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """A row a cell: ``COLUMNS``, then every other knob that varies; sorted so that like stands by like.

    The index is the record's position in ``records``. Of several machines, ``machine`` tells which, as if it were one.
    """
    named = [knobs(record) for record in records]
    machines = [hardware(record) for record in records]
    if len(set(machines)) > 1:
        named = [cell | {"machine": machine} for cell, machine in zip(named, machines, strict=True)]
    names = list(dict.fromkeys(name for cell in named for name in cell))
    other = [name for name in names if name not in AXES and len({frozen(cell.get(name)) for cell in named}) > 1]
    if len({identity(cell) for cell in named}) < len(named):  # the same cell in several sweeps
        named = [cell | {"sweep": record.sweep_id} for cell, record in zip(named, records, strict=True)]
        other.append("sweep")
    rows = [
        row(record, cell, efficiency) | {_column(name): cell.get(name) for name in other}
        for record, cell, efficiency in zip(records, named, efficiencies(list(records)), strict=True)
    ]
    precedence = [name for name in (*AXES, *map(_column, other)) if name not in ("gpus", "stage")] + ["gpus", "stage"]
    order = sorted(range(len(rows)), key=lambda at: [_rank(rows[at][name]) for name in precedence])
    table = pd.DataFrame([rows[at] for at in order], index=order, columns=[*COLUMNS, *map(_column, other)])
    for name in ("bucket_mb", "overlap"):
        table[name] = pd.Series([rows[at][name] for at in order], index=order, dtype=object)
    return table


Cell = Mapping[Hashable, Any] | pd.Series
"""A row of the table, by column."""


def each_cell(table: pd.DataFrame) -> Iterator[tuple[int, dict[Hashable, Any]]]:
    """Each row with its record's position, in a fraction of the time of iterrows."""
    return zip(map(int, table.index), table.to_dict("records"), strict=True)


def varying(table: pd.DataFrame) -> list[str]:
    """The knobs that tell the cells of a table apart.

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


def row(record: Record, named: dict[str, Any], efficiency: Efficiency | None) -> dict[str, Any]:
    """One cell in SI units; NaN or None where there is nothing to say."""
    timed = [launch for launch in record.launches if launch.ranks]
    step = medians.median_interval([time.step_time_s(launch) for launch in timed])
    trained = [] if record.resolved.get("simulated") else timed  # else of ranks that are not there
    throughput = medians.median_interval([time.throughput_per_s(record, launch) for launch in trained])
    held = memory(record)
    values: dict[str, Any] = {axis: named.get(axis) for axis in AXES}
    values |= {
        "gpus": world_size(record),
        "device": record.resolved.get("device", named.get("device")),
        "backend": record.resolved.get("backend", named.get("backend")),
        "status": record.status,
        "reason": " ".join(record.reason.split()),
        "verdicts": ";".join(record.verdicts),
        "parity_error": parity_error(record),
        "step_time_s": step.value,
        "step_time_s_low": step.low,
        "step_time_s_high": step.high,
        "throughput_per_s": throughput.value,
        "throughput_per_s_low": throughput.low,
        "throughput_per_s_high": throughput.high,
        "launches": len(record.launches),
        "interval_level": medians.attainable(len(record.launches)) if len(record.launches) > 1 else nan,
        "model_state_bytes": held.state_bytes,
        "model_state_predicted_bytes": held.predicted_bytes,
        "peak_bytes": held.peak_bytes,
        "model_state_paper_bytes": held.paper_bytes,
        "transient_predicted_bytes": held.transient_bytes,
        "sent_predicted_bytes": held.sent_bytes,
        "sent_bytes": sent_bytes(record),
        "wire_bytes": wire_bytes(record),
        "final_loss": record.final_loss if trained else None,
        "unit": record.model.unit if record.model else None,
        "parameters": record.model.parameter_count if record.model else None,
        "devices": devices(record),
        "sweep_id": record.sweep_id,
        "cell_id": record.cell_id,
    }
    mfu, joules = utilization(record, throughput), joules_per_step(record)
    values |= {
        "mfu": mfu.value,
        "mfu_low": mfu.low,
        "mfu_high": mfu.high,
        "ceiling_flops_per_s": record.ceiling.flops_per_s if record.ceiling else nan,
        "joules_per_step": joules,
        "joules_per_sample": joules / record.global_batch if joules == joules else nan,
        "verdict_reasons": " | ".join(f"{name}: {reason}" for name, reason in record.verdict_reasons.items()),
    }
    values |= {f"{kind}_bytes": (held.state or {}).get(kind, None if held.state is None else 0) for kind in KINDS}
    values |= search_columns(record)
    values |= {f"{kind}_predicted_bytes": (held.predicted or {}).get(kind) for kind in KINDS}
    values |= columns(held)
    values |= step_parts.columns(record)
    if efficiency:
        values |= scaling_columns(record, efficiency)
        if words := efficiency_violation(efficiency.interval.value, efficiency.interval.low):
            add_verdict(values, "implausible", words)
    return values


def add_verdict(values: dict[str, Any], name: str, reason: str) -> None:
    """A warning that needs other records too, to those of the record itself."""
    names = [*filter(None, values["verdicts"].split(";"))]
    reasons = dict(entry.split(": ", 1) for entry in values["verdict_reasons"].split(" | ") if entry)
    reasons[name] = "; ".join(filter(None, [reasons.get(name), reason]))
    values["verdicts"] = ";".join(dict.fromkeys([*names, name]))
    values["verdict_reasons"] = " | ".join(f"{verdict}: {words}" for verdict, words in reasons.items())


def scaling_columns(record: Record, found: Efficiency) -> dict[str, Any]:
    """A cell's columns of scaling efficiency, what its loss is made of and, of strong scaling, the serial fraction."""
    values = {
        "scaling_efficiency": found.interval.value,
        "scaling_efficiency_low": found.interval.low,
        "scaling_efficiency_high": found.interval.high,
        "scaling_baseline_gpus": found.baseline_gpus,
        "scaling_cap": found.cap,
    }
    growth = world_size(record) / found.baseline_gpus
    if record.config.get("scaling") == "strong" and growth > 1:
        serial = serial_fraction(found.interval, growth)
        ends = {"serial_fraction_low": serial.low, "serial_fraction_high": serial.high}
        values |= {"serial_fraction": serial.value} | ends
    return values | scaling_loss.columns(record, found.base, found.interval.value)


def parity_error(record: Record) -> float:
    """The larger of loss and weights error; NaN if either is, or if parity was not checked."""
    return record.parity.error if record.parity else nan


def _column(name: str) -> str:
    """The column of a knob that varies; device and backend have one already, for what they resolved to."""
    return name + ASKED if name in COLUMNS else name


def _rank(value: Any) -> tuple[bool, bool, Any]:
    """A sort key for values of mixed types: what is missing, then numbers in order, then words."""
    is_number = isinstance(value, int | float)
    return value is not None, not is_number, value if is_number else str(value)
