"""python -m bench.regress as a person uses it, on a repository of its own: a copy of this code, and changes to it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from results.record import Record
from tests.undisturbed import undisturbed

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("analysis", "bench", "conf", "hydra_plugins", "results", "terminal", "workloads")
CELL = ("workload=calibrated", "workload.layers=1", "workload.parameters_mib=0.01", "gpus=2", "threads=1")
QUICK = ("steps=2", "warmup=0", "batch_size=8", "measure.parity_steps=0")
STEP = "    def optimizer_step(self) -> None:\n"
SLOW = """\
        import time

        if not hasattr(self, "kept"):
            self.kept = torch.zeros(2**20)
        dist.all_reduce(torch.zeros(3))
        time.sleep(0.1)
"""

WORN = """\
        import os

        with open(os.environ["STEPS_TAKEN"], "ab") as file:
            file.write(b".")
            if file.tell() > 8:
                raise RuntimeError("worn out")
"""


def git(repository: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *settings, *arguments], cwd=repository, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This code, tagged ``plain``, then a commit tagged ``slow`` in which native waits, sends more and keeps more."""
    place = tmp_path_factory.mktemp("repository")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, place / package, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    git(place, "init", "-q")
    (place / ".gitignore").write_text("__pycache__\nresults/runs\n")
    adapter = place / "bench/engines/native/adapter.py"
    plain = adapter.read_text()
    assert plain.count(STEP) == 1
    for tag, text in (("plain", plain), ("slow", plain.replace(STEP, STEP + SLOW))):
        adapter.write_text(text)
        git(place, "add", "-A")
        git(place, "commit", "-qm", tag)
        git(place, "tag", tag)
    return place


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, which must be empty again in the end."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield place
    assert [path.name for path in place.iterdir() if path.name.startswith("bench-")] == []


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bench.regress", *arguments]


def regress(repository: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the gate in a copy's own folder, and looks for what it left behind."""
    process = subprocess.Popen(
        command(*arguments, f"hydra.sweep.dir={folder}"),
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    output, errors = process.communicate(timeout=1500)
    assert_nothing_left(repository, process.pid)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def assert_nothing_left(repository: Path, parent: int) -> None:
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    servers = [process.cmdline() for process in psutil.process_iter() if process.status() != psutil.STATUS_ZOMBIE]
    assert [line for line in servers if "bench.launch.forkserver" in line and line[-1] == str(parent)] == []


def records(folder: Path, side: str) -> list[Record]:
    return [Record.read(path) for path in sorted((folder / side / "records").glob("*.json"))]


@pytest.mark.alone
def test_a_slower_engine_is_detected_and_what_it_sends_and_keeps_and_the_reverse_is_faster(
    repository: Path, tmp_path: Path, temporary: Path
) -> None:
    def slow() -> str:
        git(repository, "checkout", "-q", "slow")
        shutil.rmtree(tmp_path / "slow", ignore_errors=True)
        done = regress(repository, tmp_path / "slow", "--base", "plain", *CELL, *QUICK, "repeats=8")
        assert done.returncode == 1, done.stderr
        words = " ".join(done.stdout.split())  # under load, what disturbed the cell stands before them
        assert "more memory, sends more" in words, done.stdout + done.stderr
        assert "all_reduce of 3 float32 over 2 ranks: 0, now 1 a step" in done.stdout
        return done.stdout

    def is_slower(output: str) -> None:
        assert "1 slower" in output, output

    def fast() -> str:
        git(repository, "checkout", "-q", "plain")
        shutil.rmtree(tmp_path / "fast", ignore_errors=True)
        done = regress(repository, tmp_path / "fast", "--base", "slow", *CELL, *QUICK, "measure=time", "repeats=8")
        assert done.returncode in (0, 1), done.stderr
        return done.stdout

    def is_faster(output: str) -> None:
        assert "1 faster" in output, output

    undisturbed(slow, is_slower)
    (before,), (after,) = (records(tmp_path / "slow", side) for side in ("base", "current"))
    assert [record.environment["git"]["commit"] for record in (before, after)] == [
        git(repository, "rev-parse", tag) for tag in ("plain", "slow")
    ]
    assert before.rounds_id == after.rounds_id
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_slow", before.rounds_id)
    assert (before.sweep_id, after.sweep_id) == (f"{before.rounds_id}/base", f"{before.rounds_id}/current")
    assert [launch.round for launch in before.launches] == [launch.round for launch in after.launches] == list(range(8))
    first = [
        "base" if one.started_at < two.started_at else "current"
        for one, two in zip(before.launches, after.launches, strict=True)
    ]
    assert set(first) == {"base", "current"}
    undisturbed(fast, is_faster)


@pytest.mark.parametrize(("worn", "code"), [pytest.param("current", 1, marks=pytest.mark.exhaustive), ("base", 2)])
def test_a_side_whose_cells_all_fail_ends_both_at_once(
    repository: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, worn: str, code: int
) -> None:
    """Its engine fails in the third launch: two ranks have taken two steps in each of two."""
    odd_commit(repository, "worn")
    git(repository, "checkout", "-qf", "worn" if worn == "current" else "plain")
    monkeypatch.setenv("STEPS_TAKEN", str(tmp_path / "steps"))
    base = "plain" if worn == "current" else "worn"
    done = regress(repository, tmp_path / "out", "--base", base, *CELL, *QUICK, "measure=time", "repeats=5000")
    assert done.returncode == code, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("regress: ")]
    assert line.startswith(f"regress: stopped: {worn} has no configuration left that runs (native-"), line
    assert "worn out" in line
    assert f"what was measured is kept in {tmp_path / 'out'}" in line
    assert "Traceback" not in done.stderr and {"current": "1 broken", "base": "1 not compared"}[worn] in done.stdout
    kept = {side: records(tmp_path / "out", side)[0] for side in ("base", "current")}
    other = kept.pop("base" if worn == "current" else "current")
    assert (kept[worn].status, [launch.round for launch in kept[worn].launches]) == ("failed", [0, 1])
    assert other.status == "ok" and len(other.launches) in (2, 3)  # the failed launch came first in its round, or not


def test_uncommitted_changes_of_code_and_settings_belong_to_the_current_side(
    repository: Path, tmp_path: Path, temporary: Path
) -> None:
    git(repository, "checkout", "-q", "plain")
    native_yaml = repository / "conf/engine/native.yaml"
    settings_py = repository / "results/training_settings.py"
    text, python = native_yaml.read_text(), settings_py.read_text()
    try:
        native_yaml.write_text(text.replace("in_flight: null", "in_flight: 2"))
        settings_py.write_text(python.replace("lr: float = setting(1e-3", "lr: float = setting(2e-3"))
        done = regress(
            repository, tmp_path / "out", "--base", "HEAD", *CELL, *QUICK, "measure=time", "repeats=7", "--same", "1000"
        )
    finally:
        native_yaml.write_text(text)
        settings_py.write_text(python)
    assert done.returncode == 0, done.stdout + done.stderr  # nothing is 11 times as slow
    assert "engine.in_flight: null, now 2" in done.stdout and "lr: 0.001, now 0.002" in done.stdout
    sides = {side: records(tmp_path / "out", side)[0] for side in ("base", "current")}
    assert [record.config["engine"]["in_flight"] for record in sides.values()] == [None, 2]
    assert [record.config["lr"] for record in sides.values()] == [0.001, 0.002]
    assert [record.environment["git"]["dirty"] for record in sides.values()] == [False, True]


def test_ctrl_c_compares_what_was_measured_and_leaves_nothing(
    repository: Path, tmp_path: Path, temporary: Path
) -> None:
    folder = tmp_path / "out"
    git(repository, "checkout", "-q", "plain")
    run = subprocess.Popen(
        command("--base", "HEAD", *CELL, *QUICK, "measure=time", "repeats=5000", f"hydra.sweep.dir={folder}"),
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 300
    while run.poll() is None and time.monotonic() < deadline:
        if any(len(record.launches) > 1 for record in records(folder, "current")):
            break
        time.sleep(0.2)
    run.send_signal(signal.SIGINT)
    output, errors = run.communicate(timeout=300)
    assert run.returncode == 130, errors
    assert "interrupted: what is finished is kept and compared" in errors and "cannot tell" in output
    assert all(record.status == "ok" for side in ("base", "current") for record in records(folder, side))
    assert_nothing_left(repository, run.pid)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base", "nonsense"], "--base nonsense is no revision of"),
        (["--base", "HEAD", "repeats=3"], "repeats=3 cannot find a slowdown in 1 configuration(s); valid: at least 7"),
        (["--base", "HEAD", "--same", "0"], "--same 0 is not valid; valid: per cent above 0"),
        (["--base", "HEAD", "stage=7"], "stage=7 is not valid; valid: 0, 1, 2, 3"),
        (["--base", "HEAD", "resume=true"], "resume=true: rounds of another day"),
        (["--base", "HEAD", "tracking=mlflow"], "tracking=mlflow: the gate logs nothing"),
        (["--base", "HEAD", "reproduce=x"], "reproduce= runs one configuration alone"),
        (["--base", "HEAD", "measure.timing_breakdown=true"], "measure.timing_breakdown=true: the time of two sides"),
        (["--base", "HEAD", "workload=collectives"], "search=max_batch and workload=collectives have no step time"),
        (["--base", "HEAD", "--base-python", "nowhere"], "--base-python nowhere cannot be run"),
        (["--base", "old"], "--base old cannot take launches from this code"),
        (["--base", "older"], "--base older has no conf/config.yaml"),
        (["--base", "other_work"], "batch_size is 16 at --base other_work and 32 now"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_exit_code_2(
    repository: Path, tmp_path: Path, temporary: Path, arguments: list[str], message: str
) -> None:
    if arguments[1] in ("old", "older", "other_work"):
        odd_commit(repository, arguments[1])
    git(repository, "checkout", "-qf", "plain")
    done = regress(repository, tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"regress: {message}") and done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == "" and not (tmp_path / "out").exists()


def odd_commit(repository: Path, tag: str) -> None:
    git(repository, "checkout", "-q", "plain")
    if tag == "other_work":
        settings = repository / "conf/workload/digits.yaml"
        settings.write_text(settings.read_text().replace("batch_size: 32", "batch_size: 16"))
    elif tag == "worn":
        adapter = repository / "bench/engines/native/adapter.py"
        adapter.write_text(adapter.read_text().replace(STEP, STEP + WORN))
    else:
        shutil.rmtree(repository / {"old": "bench", "older": "conf"}[tag])
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", tag)
    git(repository, "tag", "-f", tag)
