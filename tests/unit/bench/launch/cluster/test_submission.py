"""On a login node one job is submitted for the sweep; its log, its end and its cancellation are followed."""

from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.checks import ConfigError, check_cluster
from bench.cli.overrides import name_module
from bench.launch.cluster import submission
from bench.launch.cluster.start import allocated_nodes
from results.host_settings import Cluster
from results.settings import Config

ON_SLURM = Cluster(kind="slurm", nodes=2, partition="gpu", time="1:30:00", options={"qos": "high", "exclusive": False})


class Job:
    """A job of submitit whose end a test decides."""

    job_id = "7"

    def __init__(self, folder: Path, code: int | None = None) -> None:
        self.paths = SimpleNamespace(stdout=folder / "out", stderr=folder / "err", result_pickle=folder / "result.pkl")
        if code is not None:
            self.paths.result_pickle.write_bytes(pickle.dumps(("success", code)))


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_S", "ASK_S", "ENDING_S"):
        monkeypatch.setattr(submission, name, 0.0)


def in_queue(monkeypatch: pytest.MonkeyPatch, *states: str) -> None:
    """What Slurm answers, question by question."""
    answers = list(states)
    monkeypatch.setattr(submission, "queue_state", lambda job: (answers.pop(0) if answers[1:] else answers[0], "None"))


def test_a_sweep_is_submitted_only_from_outside_an_allocation() -> None:
    assert submission.is_needed(ON_SLURM, {})
    assert not submission.is_needed(ON_SLURM, {"SLURM_JOB_NUM_NODES": "2"})
    assert not submission.is_needed(Cluster(kind="ssh", hosts=["a"]), {})


def test_the_job_runs_the_same_command_without_the_settings_of_the_job(tmp_path: Path) -> None:
    given = name_module(
        ["-m", "stage=0,1", "cluster=slurm", "cluster.nodes=2", "cluster.options={qos: high}", "hydra.sweep.dir=x"]
    )
    assert "++cluster.options={qos: high}" in given
    assert submission.command(given, tmp_path) == [
        *(sys.executable, "-m", "bench", "-m", "stage=0,1", "cluster=slurm", f"hydra.sweep.dir={tmp_path}")
    ]


def test_settings_of_the_job_become_flags_of_sbatch(tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit.slurm.slurm")
    script = submitit._make_sbatch_string(command="run", folder=tmp_path, **submission.parameters(ON_SLURM))
    for flag in ("nodes=2", "partition=gpu", "time=1:30:00", "qos=high", "ntasks-per-node=1", "mem=0"):
        assert f"#SBATCH --{flag}\n" in script
    assert "exclusive" not in script and "USR2" not in script and "srun" not in script
    assert "#SBATCH --exclusive\n" in submitit._make_sbatch_string(
        command="run", folder=tmp_path, **submission.parameters(Cluster(kind="slurm", nodes=2))
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"kind": "ssh", "hosts": ["a"], "nodes": 2},
            "nodes=2 needs cluster=slurm or ray; with cluster=ssh, valid: null",
        ),
        ({"options": {"qos": "high"}}, "cluster.options=.* needs cluster=slurm; with cluster=local, valid: {}"),
    ],
)
def test_settings_of_a_job_need_slurm(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_cluster(Config(cluster=Cluster(**settings)))


def test_without_a_number_of_nodes_both_ways_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="N; or start it inside one, with salloc"):
        submission.executor_for(Cluster(kind="slurm"), tmp_path)


def test_an_allocation_bounds_the_nodes_and_says_what_has_no_effect(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("submitit")
    variables = {"SLURM_JOB_NUM_NODES": "4"}
    if not submission.shutil.which("srun"):
        pytest.skip("srun is not installed here")
    assert allocated_nodes(ON_SLURM, variables) == 2 and allocated_nodes(Cluster(kind="slurm"), variables) == 4
    assert "cluster.partition=gpu has no effect inside an allocation" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="nodes=8 is more than the allocation has; valid: 1 to 4"):
        allocated_nodes(Cluster(kind="slurm", nodes=8), variables)


def test_whole_lines_of_the_log_are_printed_once() -> None:
    out = io.StringIO()
    log = io.BytesIO(b"submitit INFO: starting\n1/4 launches\n2/4 lau")
    place = submission.copied(log, 0, out)
    assert out.getvalue() == "1/4 launches\n"
    log = io.BytesIO(log.getvalue() + b"nches\n")
    assert submission.copied(log, place, out) == len(log.getvalue())
    assert out.getvalue() == "1/4 launches\n2/4 launches\n"


def test_the_exit_code_of_the_sweep_is_that_of_the_command(no_waiting: None, tmp_path: Path) -> None:
    assert submission.Following(Job(tmp_path, code=1)).to_its_end() == 1


def test_a_job_that_reached_its_time_limit_says_how_to_continue(
    no_waiting: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_queue(monkeypatch, "PENDING", "RUNNING", "TIMEOUT")
    assert submission.Following(Job(tmp_path)).to_its_end() == submission.LOST
    printed = capsys.readouterr().err
    assert "job 7 waits in the queue" in printed
    assert "ended before the sweep: TIMEOUT (None); what is finished is kept; resume=true runs the rest" in printed


@pytest.mark.parametrize(("code", "last", "exit_code"), [(130, "PREEMPTED", 1), (-15, "CANCELLED", 1), (130, "", 0)])
def test_a_sweep_that_a_signal_ended_in_the_job_is_followed_until_slurm_no_longer_runs_it(
    no_waiting: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    last: str,
    exit_code: int,
) -> None:
    job, states = Job(tmp_path, code=code), ["COMPLETING", "PENDING", "RUNNING", last]

    def queue_state(_: str) -> tuple[str, str]:
        if states[0] == "":  # put back into the queue, it ran to its end
            Job(tmp_path, code=0)
            return "COMPLETING", "None"
        return states.pop(0) if states[1:] else states[0], "None"

    monkeypatch.setattr(submission, "queue_state", queue_state)
    assert submission.Following(job).to_its_end() == exit_code and len(states) == 1
    assert (f"ended before the sweep: {last}" in capsys.readouterr().err) == bool(last)


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_cancels_the_job_and_another_one_does_not_wait(
    no_waiting: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], times: int
) -> None:
    monkeypatch.setattr(submission, "ENDING_S", 60.0)
    following, interrupts = submission.Following(Job(tmp_path)), [KeyboardInterrupt] * times
    cancelled: list[str] = []

    def copy() -> None:
        if interrupts:
            raise interrupts.pop()

    monkeypatch.setattr(following, "_copy", copy)
    monkeypatch.setattr(submission, "cancel", cancelled.append)
    in_queue(monkeypatch, "RUNNING", "RUNNING", "CANCELLED")
    assert following.to_its_end() == submission.INTERRUPTED and cancelled == ["7"]
    assert ("job 7 ends in the background" in capsys.readouterr().err) == (times == 2)


def test_a_job_that_slurm_starts_again_continues_its_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, ran = tmp_path / "out", tmp_path / "ran"
    words = ["sh", "-c", f'echo "$@" >> {ran}', "bench", "stage=0", f"hydra.sweep.dir={folder}"]
    for restarts, has_records in (("", True), ("1", False), ("1", True)):
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts or "0")
        if has_records:
            (folder / "records").mkdir(parents=True, exist_ok=True)
        elif folder.exists():
            (folder / "records").rmdir()
        assert submission.run_in_job(words) == 0
    first, second, third = ran.read_text().splitlines()
    assert first == second == f"stage=0 hydra.sweep.dir={folder}" and third == f"{first} resume=true"
