"""Slurm on two emulated nodes: the scripts of the tutorial run as they are, and a job that hits its time limit leaves
records that another job completes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from results.record import Record
from tests.slurm_lab import SlurmLab, obstacle

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path("docs", "tutorials", "cluster")
why_not = obstacle()
pytestmark = [
    *(pytest.mark.exhaustive, pytest.mark.alone),
    pytest.mark.skipif(why_not is not None, reason=why_not or ""),
]
SPREAD = ["gpus=2", "cluster.ranks_per_host=1", "steps=3", "tracking=none"]
QUICK = [*SPREAD, "measure.ceiling=false", "cluster.health_check=false"]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[SlurmLab]:
    with SlurmLab(tmp_path / "lab").running(2) as made:
        yield made


def on_login_node(lab: SlurmLab, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(lab.login(*words), cwd=ROOT, capture_output=True, text=True, check=False)


def records(folder: Path) -> list[Record]:
    return [Record.read(path) for path in sorted((folder / "records").glob("*.json"))]


@pytest.mark.parametrize("script", ["sweep.sbatch", "torchrun.sbatch"])
def test_a_script_of_the_tutorial_runs_as_it_is(lab: SlurmLab, tmp_path: Path, script: str) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    settings = ["-m", "stage=0", *QUICK, "repeats=1", f"hydra.sweep.dir={out}"]
    done = on_login_node(lab, "sbatch", "--wait", f"--output={log}", str(SCRIPTS / script), *settings)
    assert done.returncode == 0, log.read_text() + done.stderr
    (record,) = records(out)
    assert record.status == "ok"
    assert [(host["name"], host["ranks"]) for host in record.resolved["hosts"]] == [("n1", 1), ("n2", 1)]


@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="needs submitit (pip install submitit)")
def test_a_job_that_hits_its_time_limit_leaves_whole_records_and_another_completes_them(
    lab: SlurmLab, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "bench", "-m", "engine=native,torch", "stage=0", *QUICK]
    words += ["cluster=slurm", "cluster.nodes=2", f"hydra.sweep.dir={out}"]
    cut = on_login_node(lab, *words, "cluster.time=1", "repeats=1000")
    assert cut.returncode == 1 and "TIMEOUT" in cut.stderr and "resume=true runs the rest" in cut.stderr, cut.stderr
    before = records(out)
    assert len(before) == 2 and {record.status for record in before} <= {"ok", "interrupted"}
    repeats = 1 + max(len(record.launches) for record in before)
    rest = on_login_node(lab, *words, "cluster.time=30", f"repeats={repeats}", "resume=true")
    assert rest.returncode == 0, rest.stderr
    for earlier, record in zip(before, records(out), strict=True):
        assert record.status == "ok" and len(record.launches) == repeats
        assert record.launches[: len(earlier.launches)] == earlier.launches
