"""MLflow as a place of records: opens a store, and reads what runs carry as artifacts. Alone here imports mlflow."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from results.read import Loaded, NoRecords, load
from results.secrets import without_secrets

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

URI = "sqlite:///mlflow.db"
"""The embedded store that a sweep creates in the working directory."""
EXPERIMENT = "ddp-zero-bench"
REACH_S = 3.0
"""How long a store may take to answer at all."""
ANSWER_S = 5
"""How long a request to a server may take, unless MLFLOW_HTTP_REQUEST_TIMEOUT says otherwise."""
RUN = "mlflow:"
"""What a place begins with that is a run: of a cell, or the parent run of a sweep for all its cells."""


class MlflowError(NoRecords):
    """The store cannot be used, or has not what was asked for; the message is one line."""


def default_uri() -> str:
    """The store where none is named: MLFLOW_TRACKING_URI, else the embedded one."""
    return os.environ.get("MLFLOW_TRACKING_URI") or URI


def open_client(uri: str, *, create: bool) -> MlflowClient:
    """A client of a store that answers. Raises MlflowError; with ``create`` an embedded store need not exist yet."""
    probe(uri, create=create)
    made = _sqlite_file(uri)
    is_new = made is not None and not made.exists()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(ANSWER_S))
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    import logging

    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise MlflowError(f"MLflow is not installed ({error}); pip install mlflow") from error
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db").setLevel(logging.CRITICAL)  # it prints the traceback of what it then raises
    try:
        return MlflowClient(tracking_uri=uri)
    except Exception as error:  # mlflow raises whatever its backends do
        if made and is_new:
            _remove_part(uri, made)
        raise MlflowError(f"{shown(uri)} is no MLflow store: {first_line(error)}") from error


def _remove_part(uri: str, made: Path) -> None:
    """Removes a file with some of its tables, as on a full disk, which could never be opened again.

    MLflow has a connection to it, which would be used again too.
    """
    made.unlink(missing_ok=True)
    with contextlib.suppress(ImportError, AttributeError):  # its own affair, and another in each version
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        if engine := SqlAlchemyStore._engine_map.pop(uri, None):
            engine.dispose()


def probe(uri: str, *, create: bool) -> None:
    """Raises MlflowError within a few seconds if the store cannot be used: mlflow itself tries for minutes."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        _probe_server(uri, parts)
    elif parts.scheme.startswith("sqlite"):
        _probe_sqlite(uri, create=create)
    elif parts.scheme in ("", "file") and not create and not Path(parts.path).is_dir():
        raise MlflowError(f"{shown(uri)} is no MLflow store; valid: such as {URI} or http://HOST:PORT")


def _probe_server(uri: str, parts: SplitResult) -> None:
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=f"{parts.path.rstrip('/')}/health")
    try:
        unverified = ssl._create_unverified_context()  # it gets no secret; the client verifies
        urllib.request.urlopen(address.geturl(), timeout=REACH_S, context=unverified).close()
    except urllib.error.HTTPError:
        return  # an answer, whatever it says
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise MlflowError(f"{shown(uri)} does not answer{_through(parts)}: {first_line(reason)}") from error


def _through(parts: SplitResult) -> str:
    """Names the proxy of requests to this address; empty where there is none."""
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy is None or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    name = f"{parts.scheme.upper()}_PROXY"
    return f" through the proxy {shown(proxy)} ({name}; NO_PROXY={parts.hostname} goes without)"


def _sqlite_file(uri: str) -> Path | None:
    """The file of an embedded store; None of any other."""
    is_embedded = urlsplit(uri).scheme.startswith("sqlite")
    return Path(uri.partition(":///")[2].partition("?")[0]) if is_embedded else None


def _probe_sqlite(uri: str, *, create: bool) -> None:
    path = _sqlite_file(uri)
    assert path is not None
    if not path.exists():
        if create:
            return
        raise MlflowError(f"no MLflow store at {shown(uri)}; a sweep creates it, or python -m bench.tracking import")
    try:
        store = sqlite3.connect(path, timeout=REACH_S, isolation_level=None)
        try:
            store.execute("BEGIN IMMEDIATE" if create else "SELECT count(*) FROM sqlite_master")
        finally:
            store.close()
    except sqlite3.Error as error:
        raise MlflowError(f"{shown(uri)} cannot be used: {first_line(error)}") from error


def shown(uri: str) -> str:
    """The address without a password in it."""
    return without_secrets(uri)


def first_line(error: object) -> str:
    return without_secrets((str(error).strip().splitlines() or [type(error).__name__])[0])


def load_places(places: Sequence[Path], uri: str | None = None, experiment: str | None = None) -> Loaded:
    """Records of folders, files and runs (``mlflow:RUN_ID``); without any, those of a whole experiment.

    Raises NoRecords where a place has none, and MlflowError where the store or the requested part of it is missing.
    """
    if not places:
        if uri is None and experiment is None:
            raise MlflowError("nothing to read; name a PATH, mlflow:RUN_ID, or --mlflow URI --experiment NAME")
        return experiment_records(uri or default_uri(), experiment or EXPERIMENT)
    if experiment is not None:
        raise MlflowError("--experiment reads the whole experiment; name it or PATHs, not both")
    runs = [str(place).removeprefix(RUN) for place in places if str(place).startswith(RUN)]
    parts = [run_records(uri or default_uri(), run_id) for run_id in runs]
    if files := [place for place in places if not str(place).startswith(RUN)]:
        parts.append(load(files))
    return Loaded([record for one in parts for record in one.records], [line for one in parts for line in one.warnings])


def experiment_records(uri: str, name: str) -> Loaded:
    """Every cell's record in an experiment, once however often it was logged."""
    client = open_client(uri, create=False)
    with _one_line(uri):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            there = ", ".join(sorted(one.name for one in client.search_experiments())) or "none"
            raise MlflowError(f"no experiment {name} in {shown(uri)}; there are: {there}")
        runs = [run for run in search(client, experiment.experiment_id, "") if "record" in run.data.tags]
        if not runs:
            raise MlflowError(f"experiment {name} in {shown(uri)} has no run of a configuration")
        return _records(client, runs, f"experiment {name} in {shown(uri)}")


def run_records(uri: str, run_id: str) -> Loaded:
    """The record of a cell's run; of a sweep's parent run, those of all its cells."""
    client = open_client(uri, create=False)
    with _one_line(uri):
        try:
            run = client.get_run(run_id)
        except Exception as error:
            if "not found" in str(error).lower() or "invalid" in str(error).lower():
                raise MlflowError(f"no run {run_id} in {shown(uri)}") from error
            raise
        children = search(client, run.info.experiment_id, f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
        return _records(client, list(children) or [run], f"run {run_id} in {shown(uri)}")


@contextmanager
def _one_line(uri: str) -> Iterator[None]:
    """Whatever mlflow raises becomes a MlflowError."""
    try:
        yield
    except NoRecords:
        raise
    except Exception as error:
        raise MlflowError(f"{shown(uri)} cannot be read: {first_line(error)}") from error


def search(client: MlflowClient, experiment_id: str, query: str) -> Iterator[Run]:
    """All runs of an experiment that the query finds, the newest first."""
    token = None
    while True:
        page = client.search_runs([experiment_id], query, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _records(client: MlflowClient, runs: Sequence[Run], what: str) -> Loaded:
    """The records of these runs; where a cell of a sweep was logged twice, the one with more launches."""
    missing: list[str] = []
    with tempfile.TemporaryDirectory(prefix="analysis-mlflow-") as scratch:
        files = []
        for run in runs:
            if file := _record_file(client, run, Path(scratch) / run.info.run_id):
                files.append(file)
            else:
                missing.append(f"run {run.info.run_id} ({run.info.run_name}) has no record among its artifacts")
        if not files:
            raise MlflowError(f"{what} has no record among its artifacts")
        try:
            contents = load(files)
        except NoRecords as error:
            raise MlflowError(f"{what}: {first_line(error).replace(f'{scratch}/', 'artifact ')}") from error
    warnings = [line.replace(f"{Path(scratch).resolve()}/", "artifact ") for line in contents.warnings]
    cells: dict[tuple[str, str], int] = {}
    for at, record in enumerate(contents.records):
        key = (record.sweep_id, record.cell_id)
        if key not in cells or len(record.launches) > len(contents.records[cells[key]].launches):
            cells[key] = at
    kept = sorted(cells.items())  # in the order of a sweep's folder
    return Loaded([contents.records[at] for _, at in kept], [*warnings, *missing])


def _record_file(client: MlflowClient, run: Run, folder: Path) -> Path | None:
    name = f"{run.data.tags.get('record', '')}.json"
    if name not in {entry.path for entry in client.list_artifacts(run.info.run_id) if not entry.is_dir}:
        return None
    folder.mkdir()
    return Path(client.download_artifacts(run.info.run_id, name, str(folder)))
