"""What is left when something breaks: whole records, a folder that can be resumed, and no process.

Each test breaks a real sweep on purpose. All that a sweep starts inherits an environment variable by which it is found.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from bench import network
from bench.job import LaunchResult
from bench.launch import Launcher
from bench.record import Record, RecordError
from bench.store import RecordStore, StoreError
from tests.conftest import MakeCell, planned
from tests.unit.test_analysis_fakes import cell as made_up_cell

ROOT = Path(__file__).resolve().parents[2]
FAULTY = (f"hydra.searchpath=[file://{ROOT}/tests/conf]", "workload=faulty")
QUICK = ("steps=2", "warmup=1", "measure.parity_steps=2", "measure.ceiling=false", "threads=1", "gpus=2")
MARK = "BENCH_TEST_SWEEP"
BENCH = "from bench.__main__ import main; main()"
SLOW_WRITES = "import os, time; fsync = os.fsync; os.fsync = lambda fd: (time.sleep(1), fsync(fd)); "
STOPS_IN = """
import importlib, sys, time
def stop_in(module, name):
    module = importlib.import_module(module)
    def stop(*_, **__):
        open("stopped", "w").close()
        time.sleep(600)
    setattr(module, name, stop)
"""
CLOCK_RUNS_BACK = "import time; time.time = lambda: 1.8e9 - 60 * time.monotonic(); "


class Broken:
    """A sweep in a process of its own, and where it writes: ``folder``, and temporary files in ``temporary``."""

    def __init__(self, home: Path) -> None:
        self.home, self.folder, self.temporary = home, home / "sweep", home / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.mark = uuid.uuid4().hex
        self.process: subprocess.Popen[str] | None = None

    def start(self, *arguments: str, program: str = BENCH) -> subprocess.Popen[str]:
        sweep = ("-m", *FAULTY, *QUICK, f"hydra.sweep.dir={self.folder}", *arguments)
        if not any(argument.startswith("tracking") for argument in arguments):
            sweep += ("tracking=none",)
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(self.temporary), MARK: self.mark}
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *sweep],
            cwd=self.home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def run(self, *arguments: str, program: str = BENCH) -> tuple[int, str]:
        """The exit code and what was printed; nothing may be left."""
        sweep = self.start(*arguments, program=program)
        output, errors = sweep.communicate(timeout=600)
        assert "Traceback" not in errors, errors
        assert self.left() == []
        return sweep.returncode, output + errors

    def records(self) -> dict[str, Record]:
        return {path.stem: Record.read(path) for path in (self.folder / "records").glob("*.json")}

    def launches(self) -> int:
        return sum(len(record.launches) for record in self.records().values())

    def left(self) -> list[str]:
        entry = f"{MARK}={self.mark}".encode()
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if entry in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                    found.append(f"{process.pid} {process.name()}")
        return found

    def wait_for(self, condition: Callable[[], bool], seconds: float = 600) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline and self.process and self.process.poll() is None, self.process
            time.sleep(0.02)

    def ranks(self) -> list[psutil.Process]:
        """Of the launch that runs now."""
        assert self.process
        with contextlib.suppress(psutil.Error):
            return [rank for server in self.servers() for rank in server.children()]
        return []

    def servers(self) -> list[psutil.Process]:
        assert self.process
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if "bench.forkserver" in child.cmdline()]
        return []

    def assert_all_ended(self, cells: int, repeats: int) -> None:
        found = self.records()
        assert [record.status for record in found.values()] == ["ok"] * cells
        assert all(sorted(each.round for each in record.launches) == list(range(repeats)) for record in found.values())
        assert (self.folder / "report.html").read_text().rstrip().endswith("</html>")
        assert list(self.temporary.glob("bench-*")) == []
        assert not list((self.folder / "records").glob(".*"))


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Broken]:
    broken = Broken(tmp_path)
    yield broken
    if broken.process and broken.process.poll() is None:
        broken.process.kill()
        broken.process.communicate()


def stopped(sweep: Broken) -> bool:
    """Whether the program has come to where ``STOPS_IN`` stops it."""
    return (sweep.home / "stopped").exists()


MOMENTS: dict[str, tuple[str, Callable[[Broken], object]]] = {
    "before the first record": ("", lambda sweep: sweep.ranks()),
    "in mid-sweep": ("", lambda sweep: sweep.launches() >= 2 and sweep.ranks()),
    "while a record is written": (SLOW_WRITES, lambda sweep: list((sweep.folder / "records").glob(".*.partial"))),
    "while the report is drawn": (STOPS_IN + "stop_in('analysis.plots', 'draw')\n", stopped),
    "while MLflow is logged": (STOPS_IN + "stop_in('analysis.collectives', 'metrics')\n", stopped),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_sweep_that_is_killed_goes_on_where_it_was(sweep: Broken, moment: str) -> None:
    program, condition = MOMENTS[moment]
    database = f"sqlite:///{sweep.home}/mlflow.db"
    tracking = (f"tracking.uri={database}",) if "MLflow" in moment else ("tracking=none",)
    arguments = ("stage=0,1", "repeats=3", *tracking)
    process = sweep.start(*arguments, program=program + BENCH)
    sweep.wait_for(lambda: bool(condition(sweep)))
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 5
    while sweep.left() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sweep.left() == []
    kept = {cell: record.launches for cell, record in sweep.records().items()}

    code, said = sweep.run(*arguments, "resume=true")
    assert code == 0, said
    sweep.assert_all_ended(cells=2, repeats=3)
    now = sweep.records()
    assert all(now[cell].launches[: len(launches)] == launches for cell, launches in kept.items())
    if "MLflow" in moment:
        assert "not logged" not in said


def test_a_killed_rank_and_a_killed_fork_server_cost_a_launch_each(sweep: Broken) -> None:
    arguments = ("stage=0,1,2", "repeats=4")
    process = sweep.start(*arguments)
    sweep.wait_for(lambda: sweep.launches() >= 1 and bool(sweep.ranks()))
    for victims in (sweep.ranks, sweep.servers):
        before = [cell for cell, record in sweep.records().items() if record.status == "failed"]
        with contextlib.suppress(psutil.NoSuchProcess):
            sweep.wait_for(lambda victims=victims: bool(sweep.ranks() and victims()))  # type: ignore[misc]
            victims()[0].kill()
        sweep.wait_for(lambda before=before: len(_failed(sweep)) > len(before))  # type: ignore[misc]
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "killed by signal 9" in errors and "the fork server ended with code -9" in errors
    assert sorted(record.status for record in sweep.records().values()) == ["failed", "failed", "ok"]
    assert sweep.left() == []
    kept = {cell: record.launches for cell, record in sweep.records().items()}

    code, said = sweep.run(*arguments, "resume=true")
    assert code == 0, said
    sweep.assert_all_ended(cells=3, repeats=4)
    assert all(sweep.records()[cell].launches[: len(launches)] == launches for cell, launches in kept.items())


def _failed(sweep: Broken) -> list[str]:
    return [cell for cell, record in sweep.records().items() if record.status == "failed"]


def test_a_killed_parameter_server_fails_its_launch_by_name(
    make_cell: MakeCell, launcher: Launcher, timing_job: Callable[..., object]
) -> None:
    cell = make_cell(engine="parameter_server", gpus=2, steps=5000)
    result = killed_while_it_runs(launcher, timing_job(cell), lambda processes: processes[-1], at_least=3)
    assert (result.status, result.reason) == ("failed", "rank 2: killed by signal 9 (SIGKILL)")
    assert psutil.Process(launcher._process.pid).children(recursive=True) == []


def test_a_killed_relay_fails_its_launch_at_once(
    make_config: Callable[..., object], launcher: Launcher, timing_job: Callable[..., object]
) -> None:
    knobs = {"gpus": 2, "steps": 5000, "network": _lab()}
    if obstacle := network.obstacle(network.Link(None, 0.001, 2)):
        pytest.skip(obstacle)
    job = timing_job(planned(make_config, {}, engine="torch", **knobs))  # type: ignore[arg-type]
    started = time.monotonic()
    result = killed_while_it_runs(
        launcher, job, lambda processes: next(p for p in processes if "relay.py" in " ".join(p.cmdline())), at_least=3
    )
    assert (result.status, result.reason) == ("failed", "network=lab: the process between its hosts ended")
    assert time.monotonic() - started < 50  # of the timeout of 60 s, which the ranks would have waited for
    assert psutil.Process(launcher._process.pid).children(recursive=True) == []


def _lab() -> object:
    from bench.config import Network

    return Network(kind="lab", delay="1ms")


def killed_while_it_runs(
    launcher: Launcher,
    job: object,
    choose: Callable[[list[psutil.Process]], psutil.Process],
    at_least: int,
) -> LaunchResult:
    """Launches the job and kills one of its processes once they all run."""
    import threading

    server = psutil.Process(launcher._process.pid)

    def kill() -> None:
        deadline = time.monotonic() + 60
        while len(server.children()) < at_least and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(1)
        choose(sorted(server.children(), key=lambda process: process.pid)).kill()

    killer = threading.Thread(target=kill)
    killer.start()
    result = launcher.launch(job)  # type: ignore[arg-type]
    killer.join()
    return result


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
        code, said = sweep.run("stage=0,1", f"repeats={repeats}", "resume=true")
        assert code == 0, said
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
    found = [Record.read(path) for path in (rescue / "records").glob("*.json")]
    assert [(record.status, len(record.launches)) for record in found] == [("ok", 5)] * 2
    assert (rescue / "report.html").exists() and str(rescue) in output
    assert sweep.left() == []


def test_a_record_cut_short_is_named_and_its_cell_run_again_even_if_the_clock_runs_back(sweep: Broken) -> None:
    code, said = sweep.run("stage=0,1", "repeats=1", program=CLOCK_RUNS_BACK + BENCH)
    assert code == 0, said
    before = sweep.records()
    cut = sorted((sweep.folder / "records").glob("*.json"))[0]
    cut.write_bytes(cut.read_bytes()[:1000])
    with pytest.raises(RecordError, match="not a readable record"):
        Record.read(cut)
    report = subprocess.run(
        [sys.executable, "-m", "analysis", "report", str(sweep.folder), "--out", str(sweep.home / "report")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.returncode == 0 and cut.name in (sweep.home / "report" / "report.md").read_text()

    busy = RecordStore(sweep.folder)
    code, said = sweep.run("stage=0,1", "repeats=1", "resume=true")
    assert (code, said.count("\n")) == (1, 1) and "another sweep is writing into" in said
    del busy
    code, said = sweep.run("stage=0,1", "repeats=1", "resume=true", program=CLOCK_RUNS_BACK + BENCH)
    assert code == 0 and f"{cut.name}.unreadable, its cell is run again" in " ".join(said.split())
    sweep.assert_all_ended(cells=2, repeats=1)
    now = sweep.records()
    assert now.keys() == before.keys()
    assert [cell for cell in now if now[cell].launches != before[cell].launches] == [cut.stem]


def test_a_locked_mlflow_database_costs_a_warning_and_seconds(sweep: Broken) -> None:
    uri = f"sqlite:///{sweep.home}/mlflow.db"
    with contextlib.closing(sqlite3.connect(sweep.home / "mlflow.db", isolation_level=None)) as database:
        database.execute("CREATE TABLE kept (value)")
        database.execute("BEGIN EXCLUSIVE")
        code, said = sweep.run("stage=0", "repeats=1", f"tracking.uri={uri}", "tracking.artifacts=null")
        assert code == 0, said
        (line,) = (line for line in said.splitlines() if "not logged to MLflow" in line)
        assert "database is locked" in line  # noticed by us: MLflow tries for minutes
    sweep.assert_all_ended(cells=1, repeats=1)


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


def test_what_a_killed_sweep_left_beside_its_records_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    part = tmp_path / "records" / ".cell.json.123.partial"
    part.write_text(json.dumps({})[:1])
    RecordStore(tmp_path)
    assert not part.exists()


def test_every_socket_of_a_sweep_listens_on_loopback(sweep: Broken) -> None:
    listening: set[str] = set()
    process = sweep.start("engine=native,parameter_server", "repeats=3", "steps=30", "stage=0")

    def listens() -> bool:
        with contextlib.suppress(psutil.Error):
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for member in family:
                with contextlib.suppress(psutil.Error):
                    for connection in member.net_connections("inet"):
                        if connection.status == psutil.CONN_LISTEN:
                            listening.add(f"{connection.laddr.ip} {len(family)}")
        return process.poll() is not None

    while not listens():
        time.sleep(0.05)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert {entry.split()[0] for entry in listening} <= {"127.0.0.1", "::1"}
    assert any(int(entry.split()[1]) >= 4 for entry in listening)  # seen while ranks ran
