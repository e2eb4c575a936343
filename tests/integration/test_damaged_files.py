"""Disks that fill up, folders that go, files that are damaged or locked: no record is lost, and each costs one line."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.tracking.tracker import open_tracker
from results.record import Record, RecordError
from results.settings import Tracking
from results.store import RecordStore, StoreError
from tests import command_line
from tests.broken_sweep import BENCH, ROOT, Broken
from tests.fakes import cell as made_up_cell

CLOCK_RUNS_BACK = "import time; time.time = lambda: 1.8e9 - 60 * time.monotonic(); "


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[bool]:
    """A small file system at ``place``; False where this process may not mount one."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    can = (
        shutil.which("mount") is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )
    try:
        yield can
    finally:
        if can:
            subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_stops_the_sweep_and_keeps_what_was_written(sweep: Broken) -> None:
    """Results and temporary files share a disk that fills up, so that there is no other place either."""
    disk = sweep.home / "disk"
    with mounted(disk, "size=4m") as is_mounted:
        sweep.folder, sweep.temporary = disk / "sweep", disk / "tmp"
        sweep.temporary.mkdir()
        process = sweep.start("stage=0,1", "repeats=40")
        sweep.wait_for(lambda: sweep.launches() >= 3)
        if is_mounted:
            with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
                while filler.write(bytes(4096)):
                    pass
        else:
            psutil.Process(process.pid).rlimit(resource.RLIMIT_FSIZE, (0, 0))
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 1
        assert "Traceback" not in errors
        (line,) = [line for line in errors.splitlines() if line.startswith("stopped: ")]
        assert str(sweep.folder) in line and "resume=true" in line
        assert "no report" in output and "native" not in errors.splitlines()[-1]
        assert sweep.left() == []
        kept = {cell: record.launches for cell, record in sweep.records().items()}
        assert sum(map(len, kept.values())) >= 3
        (disk / "filler").unlink(missing_ok=True)

        repeats = max(map(len, kept.values())) + 1
        code, output = sweep.run("stage=0,1", f"repeats={repeats}", "resume=true")
        assert code == 0, output
        sweep.assert_all_ended(cells=2, repeats=repeats)
        assert all(sweep.records()[cell].launches[: len(launches)] == launches for cell, launches in kept.items())


def test_a_folder_that_is_deleted_in_mid_sweep_costs_nothing(sweep: Broken) -> None:
    process = sweep.start("stage=0,1", "repeats=5")
    sweep.wait_for(lambda: sweep.launches() >= 2)
    shutil.rmtree(sweep.folder, ignore_errors=True)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 1 and "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if "cannot be written" in line]
    (rescue,) = sweep.temporary.glob("bench-rescued-*")
    assert str(sweep.folder) in line and str(rescue) in line
    rescued_records = [Record.read(path) for path in (rescue / "records").glob("*.json")]
    assert [(record.status, len(record.launches)) for record in rescued_records] == [("ok", 5)] * 2
    assert (rescue / "report.html").exists() and str(rescue) in output
    assert sweep.left() == []


def test_a_record_cut_short_is_named_and_its_cell_run_again_even_if_the_clock_runs_back(sweep: Broken) -> None:
    code, output = sweep.run("stage=0,1", "repeats=1", program=CLOCK_RUNS_BACK + BENCH)
    assert code == 0, output
    before = sweep.records()
    cut = sorted((sweep.folder / "records").glob("*.json"))[0]
    cut.write_bytes(cut.read_bytes()[:1000])
    with pytest.raises(RecordError, match="not a readable record"):
        Record.read(cut)
    report = command_line.run("analysis", "report", str(sweep.folder), "--out", str(sweep.home / "report"), cwd=ROOT)
    assert report.returncode == 0 and cut.name in (sweep.home / "report" / "report.md").read_text()

    busy = RecordStore(sweep.folder)
    code, output = sweep.run("stage=0,1", "repeats=1", "resume=true")
    assert (code, output.count("\n")) == (2, 1) and "another sweep is writing into" in output
    del busy
    code, output = sweep.run("stage=0,1", "repeats=1", "resume=true", program=CLOCK_RUNS_BACK + BENCH)
    assert code == 0 and f"{cut.name}.unreadable, its configuration is run again" in " ".join(output.split())
    sweep.assert_all_ended(cells=2, repeats=1)
    now = sweep.records()
    assert now.keys() == before.keys()
    assert [cell for cell in now if now[cell].launches != before[cell].launches] == [cut.stem]


def test_a_locked_mlflow_database_costs_a_warning_and_seconds(sweep: Broken) -> None:
    uri = f"sqlite:///{sweep.home}/mlflow.db"
    with contextlib.closing(sqlite3.connect(sweep.home / "mlflow.db", isolation_level=None)) as database:
        database.execute("CREATE TABLE kept (value)")
        database.execute("BEGIN EXCLUSIVE")
        code, output = sweep.run("stage=0", "repeats=1", f"tracking.uri={uri}", "tracking.artifacts=null")
        assert code == 0, output
        (line,) = (line for line in output.splitlines() if "not logged to MLflow" in line)
        assert "database is locked" in line  # noticed by us: MLflow tries for minutes
    sweep.assert_all_ended(cells=1, repeats=1)


def test_a_full_disk_of_the_mlflow_store_is_named_at_once_and_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk, record = tmp_path / "disk", made_up_cell()
    with mounted(disk, "size=1m") as is_mounted:
        if not is_mounted:
            pytest.skip("no file system can be mounted here")
        (disk / "filler").write_bytes(bytes(900 << 10))
        tracker = open_tracker(Tracking(kind="mlflow", uri=f"sqlite:///{disk}/mlflow.db"), tmp_path)
        tracker.log_sweep([record], tmp_path)
        errors = capsys.readouterr().err
        full = "no space left on the disk of the store or of its artifacts"
        assert f"MLflow cannot be used now ({full})" in errors and "Traceback" not in errors
        assert [f"not logged to MLflow ({full})" in line for line in tracker.warnings] == [True]
        assert [path.name for path in disk.iterdir()] == ["filler"]


def test_a_folder_that_becomes_read_only_costs_a_warning_and_no_record(tmp_path: Path) -> None:
    folder, record = tmp_path / "sweep", made_up_cell()
    with mounted(folder, "size=1m") as is_mounted:
        store = RecordStore(folder)
        store.write(record)
        if is_mounted:
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        else:
            (folder / "records").chmod(0o555)
        record.reason = "written later"
        store.write(record)
        assert store.rescued and len(store.warnings) == 1 and "cannot be written" in store.warnings[0]
        assert Record.read(folder / "records" / f"{record.cell_id}.json").reason == ""
        assert Record.read(store.folder / "records" / f"{record.cell_id}.json") == record
        if is_mounted:
            with pytest.raises(OSError, match="Read-only"):
                (folder / "records" / "new").touch()
        shutil.rmtree(store.folder)
        with pytest.raises(StoreError, match="cannot be written either"):
            store.write(record)
        del store


def test_what_a_killed_sweep_left_next_to_its_records_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    part = tmp_path / "records" / ".cell.json.123.partial"
    part.write_text(json.dumps({})[:1])
    RecordStore(tmp_path)
    assert not part.exists()
