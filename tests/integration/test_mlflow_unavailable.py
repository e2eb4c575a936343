"""A store that cannot be used costs a sweep one line."""

from __future__ import annotations

import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.tracking import __main__ as tracking
from bench.tracking.tracker import Tracker, connect, open_tracker
from results import mlflow_store
from results.read import NoRecords
from tests.fakes import sweep
from tests.integration.test_mlflow_store import cells_of, experiment, keep, parent, settings, uri, written


def test_an_experiment_that_was_deleted_is_named_with_what_brings_it_back(tmp_path: Path) -> None:
    folder = keep(sweep(stages=(0,), worlds=(1,), repeats=2), tmp_path / "sweep", "sweep")
    where = settings(tmp_path)
    connect(where)
    client = mlflow_store.open_client(uri(tmp_path), create=False)
    deleted = experiment(client)
    client.delete_experiment(deleted)
    tracker = open_tracker(where, folder)
    tracker.log_sweep(written(tmp_path, "sweep"), folder)
    restore = f"MLFLOW_TRACKING_URI={uri(tmp_path)} mlflow experiments restore -x {deleted}"
    reason = f"experiment ddp-zero-bench was deleted; first: {restore}, or name another with tracking.experiment"
    assert one_warning(tracker, folder, f"{reason})")
    client.restore_experiment(deleted)
    assert tracking.import_folders([folder], where) == 0 and cells_of(tmp_path, "sweep") == 1


def test_artifacts_are_the_files_of_the_report_where_it_looks_for_them(tmp_path: Path) -> None:
    folder = keep(sweep(stages=(0,), worlds=(1,), repeats=2), tmp_path / "sweep", "sweep")
    (folder / "figures").mkdir()
    for name in ("figures/time.png", "summary.csv", "somebody's notes", "mlflow.db"):
        (folder / name).write_text("")
    (folder / "mlartifacts").mkdir()
    assert tracking.import_folders([folder], settings(tmp_path)) == 0
    client = mlflow_store.open_client(uri(tmp_path), create=False)
    run = parent(tmp_path, "sweep")
    paths = [entry.path for place in (None, "figures") for entry in client.list_artifacts(run, place)]
    assert sorted(paths) == ["figures", "figures/time.png", "report.html", "summary.csv"]


@pytest.fixture
def silent_server() -> Iterator[tuple[str, list[socket.socket]]]:
    """Accepts connections and never answers."""
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    accepted.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", accepted
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in accepted:
        connection.close()


def one_warning(tracker: Tracker, folder: Path, reason: str) -> bool:
    (warning,) = tracker.warnings
    return (
        "\n" not in warning
        and warning.startswith(f"not logged to MLflow ({reason}")
        and f"later: python -m bench.tracking import {folder} --uri " in warning
    )


def test_a_server_that_never_answers_is_tried_at_the_start_and_once_more_at_the_end(
    silent_server: tuple[str, list[socket.socket]], tmp_path: Path
) -> None:
    address, accepted = silent_server
    folder = keep(sweep(stages=(0,), worlds=(1,), repeats=2), tmp_path / "sweep", "sweep")
    tracker = open_tracker(settings(tmp_path, address), folder)
    tracker.log_sweep(written(tmp_path, "sweep"), folder)
    assert one_warning(tracker, folder, f"{address} does not answer: timed out")
    assert len(accepted) == 2
    assert mlflow_store.REACH_S + mlflow_store.ANSWER_S <= 10


def test_a_locked_database_costs_one_line_whenever_it_is_locked(tmp_path: Path) -> None:
    folder = keep(sweep(stages=(0,), worlds=(1,), repeats=2), tmp_path / "sweep", "sweep")
    where = settings(tmp_path)
    opened = open_tracker(where, folder)
    assert opened.warnings == []
    with sqlite3.connect(tmp_path / "mlflow.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        opened.log_sweep(written(tmp_path, "sweep"), folder)
        late = open_tracker(where, folder)
        late.log_sweep(written(tmp_path, "sweep"), folder)
        for tracker in (opened, late):
            assert one_warning(tracker, folder, f"{uri(tmp_path)} cannot be used: database is locked")
        with pytest.raises(NoRecords, match=r"cannot be used: database is locked"):
            mlflow_store.experiment_records(uri(tmp_path), "x")
        other.rollback()
    assert tracking.import_folders([folder], where) == 0 and cells_of(tmp_path, "sweep") == 1
