"""The MLflow fields of a sweep and of its cells: names, params, tags and metrics."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from numbers import Real
from typing import TYPE_CHECKING, Any

from results.mlflow_links import charts, compared, tagged
from results.record import NO_ENGINE, Record

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Metric

FIRST = (
    "scaling_efficiency",
    "step_time_s",
    "throughput_per_s",
    "peak_bytes",
    "model_state_bytes",
    "sent_bytes",
    "mfu",
)
"""Metrics of a cell that come first: MLflow's compare view begins with the first that differs."""

OF_SWEEP = ("scaling_efficiency", "throughput_per_s", "step_time_s", "peak_bytes", "model_state_bytes")
"""Metrics of the sweep, as curves over the world size."""

FACTS = ("parameters", "machine_devices")
"""Columns of a cell's row that are numbers but no measurement."""

POINTS = 1000
"""Points of a series at most."""

LINKED = 100
"""Runs that one address may name."""


def setting_names(table: pd.DataFrame) -> list[str]:
    """The settings that distinguish a sweep's cells, beyond those that every run's name has."""
    from analysis.table.frame import varying

    return [name for name in varying(table) if name not in ("engine", "stage", "gpus", "workload", "precision")]


def cell_name(record: Record, row: Mapping[Any, Any], others: Sequence[str]) -> str:
    """The name in MLflow's list: ``torch stage 3, 4 ranks, digits fp32, bucket 4 MiB``."""
    from analysis.text.labels import label

    config = record.config
    named = [label("gpus", config["gpus"]), *(label(name, row[name]) for name in others)]
    if config["engine"]["name"] == NO_ENGINE:
        return ", ".join([config["workload"]["name"], *named, str(record.resolved["backend"])])
    named.insert(1, f"{config['workload']['name']} {config['precision']}")
    return ", ".join([f"{config['engine']['name']} stage {config['stage']}", *named])


def sweep_name(records: Sequence[Record]) -> str:
    """Such as ``2026-03-01_09-30-00: native, torch; digits; 12 cells``."""
    engines, workloads = (
        ", ".join(dict.fromkeys(str(record.config[group]["name"]) for record in records if record.config.get(group)))
        for group in ("engine", "workload")
    )
    parts = [engines] if engines != NO_ENGINE else []
    return f"{records[0].sweep_id}: {'; '.join([*parts, workloads, f'{len(records)} configurations'])}"


def cell_params(record: Record) -> dict[str, str]:
    """Every setting by its plain name, as configured; device and backend are what they resolved to.

    Nothing that follows from other settings: MLflow's compare view begins with the first three params that differ.
    """
    from results.identity import settings_of

    named = settings_of(record) | {"repeats": record.config.get("repeats")}
    for name in ("device", "backend", "threads"):
        named[name] = record.resolved.get(name, named.get(name))
    if record.config["engine"]["name"] == NO_ENGINE:
        del named["engine"]
    else:
        named |= {name: "default" for name in ("bucket_mb", "overlap") if named.get(name) is None}
    return {allowed(name): written(value)[:500] for name, value in named.items() if value is not None}


def written(value: Any) -> str:
    """A setting's value as it would be given: ``true``, ``4`` and not ``4.0``."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def allowed(name: str) -> str:
    """A name with what MLflow refuses in one, and slashes, replaced."""
    return re.sub(r"[^\w.: -]", "_", name)[:250]


def common_params(every: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The parameters that all cells of a sweep share."""
    return {name: value for name, value in every[0].items() if all(other.get(name) == value for other in every)}


def machine_tags(record: Record) -> dict[str, str]:
    """The machine for a person (``machine``) and for a filter (``machine_id``), and the code."""
    import hashlib

    from analysis.table.provenance import machine_line
    from results.identity import hardware

    git = record.environment.get("git") or {}
    tags = {
        "machine": machine_line(record.environment, "hardware"),
        "machine_id": hashlib.sha256(hardware(record).encode()).hexdigest()[:12],
        "mlflow.source.name": "python -m bench",
    }
    return tags | ({"mlflow.source.git.commit": str(git["commit"])} if git.get("commit") else {})


def sweep_tags(records: Sequence[Record]) -> dict[str, str]:
    statuses = [record.status for record in records]
    verdicts = dict.fromkeys(name for record in records for name in record.verdicts)
    return machine_tags(records[0]) | {
        "sweep": tagged(records[0].sweep_id),
        "cells": str(len(records)),
        "cells_ok": str(statuses.count("ok")),
        "launches": str(sum(len(record.launches) for record in records)),
        "status": ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)),
        "verdicts": ", ".join(verdicts),
        "simulated": written(any(bool(record.resolved.get("simulated")) for record in records)),
    }


def cell_tags(record: Record) -> dict[str, str]:
    """Status and warnings of the cell; ``record`` names its artifact."""
    tags = machine_tags(record) | {
        "sweep": tagged(record.sweep_id),
        "record": record.cell_id,
        "status": record.status,
        "verdicts": ", ".join(record.verdicts),
        "simulated": written(bool(record.resolved.get("simulated"))),
        "global_batch": str(record.resolved.get("global_batch", "")),
    }
    tags |= {f"verdict.{name}": reason[:500] for name, reason in record.verdict_reasons.items()}
    return tags | ({"reason": record.reason[:500]} if record.reason else {})


def metric_names(table: pd.DataFrame) -> list[str]:
    """Columns of summary.csv that measure something, ``FIRST`` ahead, less those that are zero in every cell."""
    from analysis.table.frame import AXES, COLUMNS

    names = [name for name in dict.fromkeys((*FIRST, *COLUMNS)) if name not in (*AXES, *FACTS)]
    return [name for name in names if any(_is_number(value) and value for value in table[name])]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def cell_metrics(record: Record, row: Mapping[Any, Any], names: Sequence[str]) -> Iterator[Metric]:
    """The numbers of a cell's row in summary.csv that ``names`` has, and its launches and steps as series."""
    from mlflow.entities import Metric

    from analysis.advice.alpha_beta import metrics

    _, now = moments([record])
    for name, value in ({name: row[name] for name in names} | metrics(record)).items():
        if _is_number(value):
            yield Metric(allowed(name), float(value), now, 0)
    for name, values in series(record).items():
        stride = math.ceil(len(values) / POINTS)
        for position in range(0, len(values), max(1, stride)):
            if math.isfinite(values[position]):
                yield Metric(name, values[position], now, position)


def series(record: Record) -> dict[str, list[float]]:
    """By launch, its step time and throughput; by step, the median time over launches, and the last launch's loss."""
    from analysis.metrics import time

    timed = [launch for launch in record.launches if launch.ranks]
    if not timed:
        return {}
    values_by_name = {
        "by_launch_step_time_s": [time.step_time_s(launch) for launch in timed],
        "by_step_time_s": [
            statistics.median(times) for times in zip(*(launch.step_times_s() for launch in timed), strict=False)
        ],
    }
    if not record.resolved.get("simulated"):  # else of ranks that are not there
        values_by_name["by_launch_throughput_per_s"] = [time.throughput_per_s(record, launch) for launch in timed]
        ranks = [rank.losses for rank in timed[-1].ranks]
        values_by_name["by_step_loss"] = [sum(losses) / len(losses) for losses in zip(*ranks, strict=False)]
    return values_by_name


def sweep_metrics(records: Sequence[Record], table: pd.DataFrame) -> Iterator[Metric]:
    """Curves over the world size, one a setting: MLflow's step is the number of ranks."""
    from mlflow.entities import Metric

    from analysis.table.frame import varying
    from analysis.text.labels import label

    _, now = moments(records)
    names = [name for name in varying(table) if name != "gpus"]
    for _, row in table[table["status"] == "ok"].iterrows():
        setting = " ".join(label(name, row[name]) for name in names)
        for name in OF_SWEEP:
            if _is_number(value := row[name]):
                yield Metric(allowed(f"{name} {setting}".strip()), float(value), now, int(row["gpus"]))


def moments(records: Sequence[Record]) -> tuple[int, int]:
    """When measuring began and ended, in milliseconds since 1970."""
    begins, ends = [], []
    for record in records:
        begun = _ms(record.environment.get("time"))
        begins += [begun] if begun else []
        for launch in record.launches:
            if at := _ms(launch.started_at):
                begins.append(at)
                ends.append(at + round(1000 * launch.seconds.get("total_s", 0.0)))
    if not begins:
        now = round(1000 * datetime.now().timestamp())
        return now, now
    return min(begins), max([*ends, *begins])


def _ms(moment: object) -> int:
    try:
        return round(1000 * datetime.fromisoformat(str(moment)).timestamp())
    except ValueError:
        return 0


def description(records: Sequence[Record], table: pd.DataFrame, experiment_id: str, run_ids: Sequence[str]) -> str:
    """The description on the parent run's page: the sweep in a line, and a link that compares its cells."""
    from analysis.table.provenance import machine_line, sweep_line

    lines = [sweep_line(records, table), machine_line(records[0].environment)]
    links = [f"[its configurations as charts]({charts(experiment_id, records[0].sweep_id)})"]
    if 1 < len(run_ids) <= LINKED:
        links.append(f"[compared]({compared(experiment_id, run_ids)})")
    return "\n\n".join([*lines, ", ".join(links)])
