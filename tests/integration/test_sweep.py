"""python -m bench as a person uses it: what a sweep leaves behind, whatever happens to it."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from results.record import Record
from results.verdicts import MOMENTARY
from tests import command_line
from tests.undisturbed import undisturbed

ROOT = Path(__file__).resolve().parents[2]
FAULTY = (f"hydra.searchpath=[file://{ROOT}/tests/conf]", "workload=faulty")
QUICK = ("steps=2", "warmup=1", "repeats=2", "measure.parity_steps=2", "threads=1")


def command(*arguments: str, module: str = "bench") -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def run(cwd: Path, *arguments: str, module: str = "bench", drawn: bool = False) -> subprocess.CompletedProcess[str]:
    return command_line.run(module, *arguments, cwd=cwd, drawn=drawn)


def records(folder: Path) -> dict[str, Record]:
    return {path.stem: Record.read(path) for path in (folder / "records").glob("*.json")}


def summary(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "gpus=0,1"], "bench: gpus=0 is not valid; valid: a whole number of at least 1"),
        (["batch_size=3", "accumulate=2"], "bench: batch_size=3 cannot be shared evenly"),
        (["-m", "repeats=1,2"], "bench: repeats cannot be swept"),
        pytest.param(
            ["device=cpu", "search=max_batch", "tracking=none"],
            "bench: search=max_batch needs memory_limit on device=cpu",
            marks=pytest.mark.exhaustive,  # it starts the fork server first; a unit test has the line
        ),
        (["hydra.mode=MULTIRUN", "reproduce=nowhere.json"], "bench: reproduce= runs the one cell of a record"),
        (["+engine.foo=1"], "bench: engine.foo is not an option of engine=native; valid: in_flight"),
        (["hydra.run.dir=/proc/nowhere"], "bench: "),
        pytest.param(
            ["-m", "workload=module:workloads.mlp:MPL", "stage=0,3", "tracking=none"],
            "bench: workload.path=workloads.mlp:MPL: workloads.mlp has no callable 'MPL'; did you mean 'MLP'?",
            marks=pytest.mark.exhaustive,
        ),
        (["experiment=smoke", "hydra.sweep.dir=/proc/nowhere"], "bench: "),
    ],
)
def test_bad_input_is_rejected_with_one_line_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert [path for path in tmp_path.rglob("*") if path.name not in ("results", "runs")] == []


def test_a_sweep_continues_after_failures_and_rejections_and_can_be_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    sweep = (
        *("-m", *FAULTY, "engine=torch", "workload.how=none,raise", "stage=0,2", "bucket_mb=null,1", "gpus=2", *QUICK),
        *("tracking=none", f"hydra.sweep.dir={folder}"),
    )
    done = run(tmp_path, *sweep, drawn=True)
    assert done.returncode == 1
    first_records = records(folder)
    by_setting = {
        (r.config["stage"], r.config["bucket_mb"], r.config["workload"]["how"]): r for r in first_records.values()
    }
    assert {setting: record.status for setting, record in by_setting.items()} == {
        (0, None, "none"): "ok",
        (0, 1, "none"): "ok",
        (2, None, "none"): "ok",
        (2, 1, "none"): "unsupported",
        (0, None, "raise"): "failed",
        (0, 1, "raise"): "failed",
        (2, None, "raise"): "failed",
        (2, 1, "raise"): "unsupported",
    }
    failed = by_setting[0, None, "raise"]
    assert failed.reason == "rank 0: RuntimeError: the model is broken"
    assert "the model is broken" in failed.failure[0].last_output
    where = f"the traceback is in `failure` of {folder}/records/{failed.cell_id}.json"
    assert f"the model is broken; {where}" in " ".join(done.stderr.split())
    sound = by_setting[0, None, "none"]
    assert [launch.round for launch in sound.launches] == [0, 1]
    assert sound.parity and sound.parity.passed and sound.model and sound.memory
    about_the_machine = {*MOMENTARY, "ceiling_disturbed"}  # it may be busy
    assert [name for name in sound.verdicts if name not in about_the_machine] == ["synthetic_data", "too_few_launches"]
    assert set(sound.verdict_reasons) == {name for name in sound.verdicts if name in about_the_machine}
    assert all(launch.conditions["window_s"] > 0 for launch in sound.launches)
    assert sound.ceiling and sound.ceiling.flops_per_s > 0
    assert {row["status"] for row in summary(folder)} == {"ok", "unsupported", "failed"}
    assert (folder / "report.html").exists() and (folder / "report.md").exists() and [*folder.rglob("*.png")]
    assert done.stdout.strip().splitlines()[-1].endswith("report.html")

    again = run(tmp_path, *sweep)
    assert (again.returncode, "already contains a sweep; set resume=true" in again.stderr) == (2, True)
    assert records(folder) == first_records

    kept = {cell: record.launches for cell, record in first_records.items() if record.status == "ok"}
    missing = sound.cell_id
    (folder / "records" / f"{missing}.json").unlink()
    resumed = run(tmp_path, *sweep, "resume=true")
    assert "Traceback" not in resumed.stderr and "bench:" not in resumed.stderr, resumed.stderr
    now = records(folder)
    assert set(now) == set(first_records)
    assert {record.sweep_id for record in now.values()} == {sound.sweep_id}
    assert now[missing].status == "ok" and now[missing].launches != kept[missing]
    assert all(now[cell].launches == launches for cell, launches in kept.items() if cell != missing)


def test_a_run_is_logged_as_a_parent_and_a_child_and_once_when_it_is_resumed(tmp_path: Path) -> None:
    for more in ((), ("repeats=3", "resume=true")):
        done = run(tmp_path, "gpus=2", "batch_size=8", *QUICK, *more, "hydra.sweep.dir=out")
        assert done.returncode == 0, done.stderr
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("ddp-zero-bench")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    (child,) = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.data.tags["launches"], child.data.metrics["launches"], child.data.params["repeats"]) == ("3", 3, "3")
    row = summary(tmp_path / "out")[0]
    for name in ("step_time_s", "throughput_per_s", "model_state_bytes", "peak_bytes"):
        assert child.data.metrics[name] == pytest.approx(float(row[name]))
    assert child.data.params["stage"] == "0" and child.data.tags["status"] == "ok"
    assert len(client.get_metric_history(child.info.run_id, "by_step_time_s")) == 2
    assert {"report.html", "summary.csv"} <= {entry.path for entry in client.list_artifacts(parent.info.run_id)}
    assert [entry.path for entry in client.list_artifacts(child.info.run_id)] == [f"{row['cell_id']}.json"]


def test_a_dead_tracking_server_costs_a_warning_and_the_records_can_be_logged_later(tmp_path: Path) -> None:
    def took_s() -> float:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        started = time.monotonic()
        done = run(tmp_path, *FAULTY, *QUICK, "tracking.uri=http://127.0.0.1:9", "hydra.run.dir=out")
        ended = time.monotonic()
        assert done.returncode == 0, done.stderr
        assert "not logged to MLflow" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return ended - started

    def claim(took_s: float) -> None:
        assert took_s < 120

    undisturbed(took_s, claim)
    uri = f"sqlite:///{tmp_path}/later.db"
    later = run(tmp_path, "import", "out", "--uri", uri, module="bench.tracking")
    assert (later.returncode, later.stdout) == (0, "out: 1 records\n"), later.stderr
    missing = run(tmp_path, "import", "nowhere", "--uri", uri, module="bench.tracking")
    assert (missing.returncode, missing.stderr) == (1, "nowhere: nowhere/records does not exist\n")


def test_ctrl_c_keeps_and_reports_what_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    arguments = ("-m", *FAULTY, "stage=0,1", "gpus=1", "repeats=500", "steps=2", "warmup=0", "tracking=none")
    sweep = subprocess.Popen(
        command(*arguments, f"hydra.sweep.dir={folder}"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    deadline = time.monotonic() + 300
    while (
        sweep.poll() is None
        and time.monotonic() < deadline
        and not any(r.launches for r in (records(folder) if folder.exists() else {}).values())
    ):
        time.sleep(0.2)
    children = psutil.Process(sweep.pid).children(recursive=True)
    sweep.send_signal(signal.SIGINT)
    output, errors = sweep.communicate(timeout=300)
    assert sweep.returncode == 130, errors
    assert "interrupted: what is finished is kept and reported" in errors
    assert any(record.status == "ok" for record in records(folder).values())
    assert len(summary(folder)) == 2
    assert output.strip().splitlines()[-1].endswith("report.html")
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


WORD = "".join(("hun", "ter"))  # whole nowhere in the source, whose patch a record holds
URI = f"http://me:{WORD}2@127.0.0.1:9/?token={WORD}3"


@pytest.mark.parametrize("multirun", [pytest.param([], marks=pytest.mark.exhaustive), ["-m"]])
def test_nothing_that_a_sweep_writes_holds_the_password(multirun: list[str], tmp_path: Path) -> None:
    words = [f"tracking.uri='{URI}'", f"+hydra.job.env_set.MY_TOKEN={WORD}4", "hydra.sweep.dir=sweep"]
    words += ["workload=linear", "batch_size=8", "steps=1", "warmup=0", "repeats=1", "measure=time"]
    ended = run(tmp_path, *multirun, *words, drawn=True)
    assert ended.returncode == 0 and "tried again at the end" in ended.stderr, ended.stderr
    assert "not logged to MLflow" in ended.stdout and WORD not in ended.stdout + ended.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".png" for path in files)
    assert [path for path in files if WORD.encode() in path.read_bytes()] == []
