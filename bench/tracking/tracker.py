"""Records to MLflow: one parent run per sweep, one child per cell, logged by the parent process alone.

A store that cannot be reached costs a warning and nothing else: the records are on disk.
"""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from analysis.report import mlflow_fields
from results import mlflow_links
from results.mlflow_store import default_uri, shown
from results.record import Record
from results.settings import Tracking
from results.traces import FOLDER

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

BATCH = 1000
"""Metrics that MLflow takes at once."""

PARAMS = 100
"""Params that it takes at once."""

SIZE_TAGS = ("cells", "cells_ok", "launches")
"""Tags of a parent run that say how much of its sweep it has."""


class Tracker:
    """Logs sweeps. Without a client it does nothing, or, if ``unopened``, opens the store when there is a sweep."""

    def __init__(
        self, settings: Tracking, client: MlflowClient | None = None, experiment_id: str = "", *, unopened: bool = False
    ) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._settings = settings
        self._uri = settings.uri or ""
        self._unopened = unopened
        self.warnings: list[str] = []

    def log_sweep(self, records: list[Record], folder: Path, *, instead: bool = False) -> None:
        """One parent run with the report of ``folder`` as its artifacts, and a child for each record.

        With ``instead`` these take the place of what the experiment has of the sweep, which goes to MLflow's trash once
        they are whole.
        """
        from results.mlflow_store import probe

        try:
            if self._unopened:
                opened = connect(self._settings)
                self._client, self._experiment_id = opened._client, opened._experiment_id
            if self._client is None:
                return
            probe(self._uri, create=True)  # a sweep is long: it may have died since
            earlier = list(self._runs(records[0].sweep_id)) if instead else []
            self._log_sweep(self._client, records, folder)
            for run in earlier:
                self._client.delete_run(run.info.run_id)
        except Exception as error:  # any failure of the store: the records are safe, say how to log them later
            self.warnings.append(unreachable(error, folder, self._settings))

    def has(self, records: list[Record]) -> bool:
        """Whether the experiment has all that these records have of their sweep, and has it once."""
        tags = mlflow_fields.sweep_tags(records)
        parents = [run for run in self._runs(records[0].sweep_id) if "cells" in run.data.tags]
        logged = [(run.info.status, *(run.data.tags.get(name) for name in SIZE_TAGS)) for run in parents]
        return logged == [("FINISHED", *(tags[name] for name in SIZE_TAGS))]

    def _runs(self, sweep_id: str) -> Iterator[Run]:
        if self._client is None:
            return iter(())
        from results.mlflow_store import search

        return search(self._client, self._experiment_id, f"tags.sweep = '{mlflow_links.tagged(sweep_id)}'")

    def _log_sweep(self, client: MlflowClient, records: list[Record], folder: Path) -> None:
        from analysis.report.write import WRITTEN
        from analysis.table.frame import frame
        from results.mlflow_store import probe

        begin, end = mlflow_fields.moments(records)
        name = mlflow_fields.sweep_name(records)
        tags = mlflow_fields.sweep_tags(records)
        parent_id = client.create_run(self._experiment_id, begin, tags, name).info.run_id
        try:
            table = frame(records)
            children = self._log_cells(client, records, table, parent_id, folder)
            params = mlflow_fields.common_params([mlflow_fields.cell_params(record) for record in records])
            self._log_batches(client, parent_id, mlflow_fields.sweep_metrics(records, table), params)
            note = mlflow_fields.description(records, table, self._experiment_id, children)
            client.set_tag(parent_id, "mlflow.note.content", note)
            for path in (folder / name for name in WRITTEN):
                if path.exists():
                    client.log_artifact(parent_id, str(path))  # a folder goes below its own name
        except BaseException:
            with suppress(Exception):
                probe(self._uri, create=True)  # do not wait once more for a store that is gone
                client.set_terminated(parent_id, "KILLED")
            raise
        client.set_terminated(parent_id, end_time=end)

    def _log_cells(
        self, client: MlflowClient, records: list[Record], table: pd.DataFrame, parent_id: str, folder: Path
    ) -> list[str]:
        """A child run for each record; their ids, in the order of the table."""
        others, measured = mlflow_fields.setting_names(table), mlflow_fields.metric_names(table)
        run_ids = []
        for position, row in table.iterrows():
            record = records[int(str(position))]
            begin, end = mlflow_fields.moments([record])
            tags = mlflow_fields.cell_tags(record) | {"mlflow.parentRunId": parent_id}
            name = mlflow_fields.cell_name(record, dict(row.items()), others)
            run_id = client.create_run(self._experiment_id, begin, tags, name).info.run_id
            metrics = mlflow_fields.cell_metrics(record, dict(row.items()), measured)
            self._log_batches(client, run_id, metrics, mlflow_fields.cell_params(record))
            path = folder / "records" / f"{record.cell_id}.json"
            if path.exists():
                client.log_artifact(run_id, str(path))
            self._log_traces(client, run_id, record, folder)
            client.set_terminated(run_id, "FINISHED" if record.status == "ok" else "FAILED", end)
            run_ids.append(run_id)
        return run_ids

    @staticmethod
    def _log_traces(client: MlflowClient, run_id: str, record: Record, folder: Path) -> None:
        """The trace files of a configuration that are in the sweep's folder."""
        for file in record.traces.files if record.traces else []:
            if (folder / file.name).is_file():
                client.log_artifact(run_id, str(folder / file.name), FOLDER)

    @staticmethod
    def _log_batches(client: MlflowClient, run_id: str, metrics: Iterable[Metric], params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        remaining = iter(metrics)
        while batch := list(islice(remaining, BATCH)):
            client.log_batch(run_id, metrics=batch)
        named = [Param(name, value) for name, value in params.items()]
        for begin in range(0, len(named), PARAMS):
            client.log_batch(run_id, params=named[begin : begin + PARAMS])


def open_tracker(settings: Tracking, folder: Path) -> Tracker:
    """A tracker for these settings; one that only warns if the store cannot be used."""
    if settings.kind == "none" or settings.uri is None:
        return Tracker(settings)
    try:
        return connect(settings)
    except Exception as error:  # mlflow missing, server down, database locked, no permission: never the sweep's end
        print(
            f"warning: MLflow cannot be used now ({cause(error)}); it is tried again at the end of the sweep",
            file=sys.stderr,
        )
        return Tracker(settings, unopened=True)


def connect(settings: Tracking) -> Tracker:
    """Opens the store, creating an embedded one and the experiment when they do not exist.

    Raises MlflowError where the store cannot be used or the experiment was deleted, and whatever else mlflow does.
    """
    assert settings.uri is not None
    from results.mlflow_store import MlflowError, open_client

    client = open_client(settings.uri, create=True)
    experiment = client.get_experiment_by_name(settings.experiment)
    if experiment and experiment.lifecycle_stage == "deleted":
        raise MlflowError(
            f"experiment {settings.experiment} was deleted; "
            f"first: MLFLOW_TRACKING_URI={shlex.quote(shown(settings.uri))} mlflow experiments restore "
            f"-x {experiment.experiment_id}, or name another with tracking.experiment"
        )
    if experiment:
        return Tracker(settings, client, experiment.experiment_id)
    embedded = urlparse(settings.uri).scheme not in ("http", "https")
    place = Path(settings.artifacts).resolve().as_uri() if settings.artifacts and embedded else None
    kind = {"mlflow.experimentKind": "custom_model_development"}  # else the UI opens on pages for language models
    return Tracker(settings, client, client.create_experiment(settings.experiment, place, kind))


def unreachable(error: Exception, folder: Path, settings: Tracking) -> str:
    """One line: what went wrong, and the command that logs the records later."""
    later = ["python -m bench.tracking import", shlex.quote(str(folder))]
    if settings.uri and settings.uri != default_uri():
        later += ["--uri", shlex.quote(shown(settings.uri))]
    if settings.experiment != Tracking.experiment:
        later += ["--experiment", shlex.quote(settings.experiment)]
    return f"not logged to MLflow ({cause(error)}); later: {' '.join(later)}"


def cause(error: BaseException) -> str:
    """Why the store failed, in a line; a full disk is named, however deep it lies below mlflow's own message."""
    from results.mlflow_store import first_line

    below: BaseException | None = error
    while below is not None:
        if getattr(below, "errno", None) == errno.ENOSPC or "disk is full" in str(below):
            return "no space left on the disk of the store or of its artifacts"
        below = below.__cause__ or below.__context__
    return first_line(error)[:240]
