"""Records to MLflow: one parent run per sweep, one child per cell, logged by the parent process alone.

    python -m bench.tracking import PATH...     logs the records of earlier sweeps

A store that cannot be reached costs a warning and nothing else: the records are on disk.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import socket
import sqlite3
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from bench.config import Tracking
from bench.record import NO_ENGINE, Record, RecordError

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

REACH_S = 3.0
"""How long a tracking server may take to accept a connection, and another process may keep a database locked."""


class Tracker:
    """Logs sweeps. Without a client it does nothing."""

    def __init__(self, client: MlflowClient | None = None, experiment_id: str = "", uri: str = "") -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._uri = uri
        self.warnings: list[str] = []

    def log_sweep(self, records: list[Record], folder: Path) -> None:
        """One parent run with the report of ``folder`` as its artifacts, and a child for each record."""
        if self._client is None:
            return
        try:
            reach(self._uri)
            self._log_sweep(self._client, records, folder)
        except Exception as error:  # any failure of the store: the records are safe, say how to log them later
            self.warnings.append(unreachable(error, folder))

    def has(self, sweep_id: str) -> bool:
        """Whether the experiment has the whole sweep: a parent run that ended. One that was cut off does not count."""
        if self._client is None:
            return False
        name = sweep_id.replace("'", "")
        whole = f"tags.sweep = '{name}' AND tags.cells LIKE '%' AND attributes.status = 'FINISHED'"
        return bool(self._client.search_runs([self._experiment_id], whole, max_results=1))

    def _log_sweep(self, client: MlflowClient, records: list[Record], folder: Path) -> None:
        parent = client.create_run(self._experiment_id, run_name=folder.name, tags=parent_tags(records))
        try:
            self._log_children(client, records, parent.info.run_id, folder)
        except BaseException:
            client.set_terminated(parent.info.run_id, "KILLED")
            raise
        client.set_terminated(parent.info.run_id)

    def _log_children(self, client: MlflowClient, records: list[Record], parent_id: str, folder: Path) -> None:
        from analysis.load import frame

        for position, row in frame(records).iterrows():
            self._log_cell(client, records[int(str(position))], dict(row.items()), parent_id, folder)
        for path in sorted(folder.iterdir()):
            if path.name != "records" and not path.name.startswith("."):
                client.log_artifact(parent_id, str(path), "report" if path.is_dir() else None)

    def _log_cell(
        self, client: MlflowClient, record: Record, row: Mapping[Any, Any], parent_id: str, folder: Path
    ) -> None:
        from mlflow.entities import Param, RunTag

        tags = cell_tags(record) | {"mlflow.parentRunId": parent_id}
        run_id = client.create_run(self._experiment_id, run_name=cell_name(record), tags=tags).info.run_id
        params = [Param(name, str(value)[:500]) for name, value in flatten(record.config) if value is not None]
        client.log_batch(
            run_id, metrics=list(cell_metrics(record, row)), params=params, tags=[RunTag("record", record.cell_id)]
        )
        path = folder / "records" / f"{record.cell_id}.json"
        if path.exists():
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id, "FINISHED" if record.status == "ok" else "FAILED")


def open_tracker(settings: Tracking, folder: Path) -> Tracker:
    """A tracker for these settings; one that only warns if the store cannot be used."""
    if settings.kind == "none" or settings.uri is None:
        return Tracker()
    try:
        return connect(settings)
    except Exception as error:  # mlflow missing, server down, database locked, no permission: never the sweep's end
        tracker = Tracker()
        tracker.warnings.append(unreachable(error, folder))
        return tracker


def connect(settings: Tracking) -> Tracker:
    """Opens the store, creating an embedded one and the experiment when they do not exist."""
    assert settings.uri is not None
    reach(settings.uri)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import logging

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=settings.uri)
    experiment = client.get_experiment_by_name(settings.experiment)
    if experiment:
        return Tracker(client, experiment.experiment_id, settings.uri)
    embedded = urlparse(settings.uri).scheme not in ("http", "https")
    place = Path(settings.artifacts).resolve().as_uri() if settings.artifacts and embedded else None
    return Tracker(client, client.create_experiment(settings.experiment, artifact_location=place), settings.uri)


def reach(uri: str) -> None:
    """Raises OSError or sqlite3.Error if a server does not answer or a database stays locked; MLflow waits minutes."""
    parts = urlparse(uri)
    if parts.scheme in ("http", "https") and parts.hostname:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=REACH_S).close()
    file = Path(uri.removeprefix("sqlite:///"))
    if parts.scheme == "sqlite" and file.is_file():
        with contextlib.closing(sqlite3.connect(file, timeout=REACH_S, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")


def unreachable(error: Exception, folder: Path) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"not logged to MLflow ({line[:120]}); later: python -m bench.tracking import {folder}"


def cell_name(record: Record) -> str:
    """What a person reads in MLflow's list: ``torch stage 3, 4 ranks, digits fp32``."""
    config = record.config
    if config["engine"]["name"] == NO_ENGINE:
        return f"{config['workload']['name']}, {config['gpus']} ranks, {record.resolved['backend']}"
    return (
        f"{config['engine']['name']} stage {config['stage']}, {config['gpus']} ranks, "
        f"{config['workload']['name']} {config['precision']}"
    )


def parent_tags(records: list[Record]) -> dict[str, str]:
    statuses = [record.status for record in records]
    return {
        "sweep": records[0].sweep_id,
        "cells": str(len(records)),
        "cells_ok": str(statuses.count("ok")),
        "machine": str(records[0].environment.get("cpu_model", "")),
    }


def cell_tags(record: Record) -> dict[str, str]:
    tags = {"sweep": record.sweep_id, "status": record.status, "verdicts": ",".join(record.verdicts)}
    tags |= {name: str(value) for name, value in record.resolved.items() if isinstance(value, str | int)}
    tags |= {f"verdict.{name}": reason[:500] for name, reason in record.verdict_reasons.items()}
    return tags | ({"reason": record.reason[:500]} if record.reason else {})


def cell_metrics(record: Record, row: Mapping[Any, Any]) -> Iterator[Metric]:
    """The numbers of a cell's row in summary.csv, units in their names, and its step times and losses as series."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    for name, value in row.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield Metric(name, float(value), now, 0)
    from analysis.collectives import metrics

    for name, value in metrics(record).items():
        if math.isfinite(value):
            yield Metric(name, value, now, 0)
    launches = [launch.step_times_s() for launch in record.launches]
    for step, values in enumerate(zip(*launches, strict=False)):
        yield Metric("series/step_time_s", statistics.median(values), now, step)
    for step, losses in enumerate(_mean_losses(record)):
        yield Metric("series/loss", losses, now, step)


def _mean_losses(record: Record) -> list[float]:
    if not record.launches:
        return []
    ranks = [rank.losses for rank in record.launches[-1].ranks]
    return [sum(losses) / len(losses) for losses in zip(*ranks, strict=False) if all(map(math.isfinite, losses))]


def flatten(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def import_folders(paths: list[Path], settings: Tracking, *, again: bool = False) -> int:
    """Logs every sweep found in ``paths``, less those that the experiment has, unless ``again``; the exit code."""
    code = 0
    tracker = connect(settings)
    for folder in paths:
        records = []
        for path in sorted((folder / "records").glob("*.json")):
            try:
                records.append(Record.read(path))
            except RecordError as error:
                print(f"skipped: {error}", file=sys.stderr)
                code = 1
        if not records:
            print(f"{folder}: no records in {folder / 'records'}", file=sys.stderr)
            code = 1
            continue
        if not again and tracker.has(records[0].sweep_id):
            print(f"{folder}: already in experiment {settings.experiment}; --again logs it once more")
            continue
        tracker.log_sweep(records, folder)
        print(f"{folder}: {len(records)} records")
    for warning in tracker.warnings:
        print(warning, file=sys.stderr)
    return code or int(bool(tracker.warnings))


def main() -> int:
    defaults = Tracking()
    parser = argparse.ArgumentParser(prog="python -m bench.tracking", description=__doc__.partition("\n")[0])
    command = parser.add_subparsers(dest="command", required=True)
    imported = command.add_parser("import", help="log the records of earlier sweeps")
    imported.add_argument("paths", nargs="+", type=Path, help="a sweep's folder (results/runs/DATE_TIME)")
    imported.add_argument("--uri", default=defaults.uri, help="MLflow store or server (default: %(default)s)")
    imported.add_argument("--experiment", default=defaults.experiment, help="MLflow experiment (default: %(default)s)")
    imported.add_argument("--again", action="store_true", help="log also sweeps that the experiment has already")
    arguments = parser.parse_args()
    settings = Tracking(uri=arguments.uri, experiment=arguments.experiment)
    try:
        return import_folders(arguments.paths, settings, again=arguments.again)
    except Exception as error:  # whatever the store says, one line of it
        print(f"bench.tracking: {(str(error).splitlines() or [type(error).__name__])[0]}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
