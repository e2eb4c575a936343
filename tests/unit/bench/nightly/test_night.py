"""A night: what is run, what its exit codes mean, and what the summary says, whatever happens within."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.comparison import counter_check, time_gate
from bench.groups import CONF
from bench.nightly import summary
from bench.regress.__main__ import check, composed
from tests.fakes import bare, cell, write_all

ROOT = Path(__file__).resolve().parents[4]
SCRIPT = ROOT / "scripts" / "nightly.sh"
HEAD = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
PYTHON = f"""\
#!/bin/sh
case "$*" in
    *--gpus) echo "${{GPUS:-0}}"; exit ;;
    *nightly.summary*) exec {shlex.quote(sys.executable)} "$@" ;;
    *bench.preflight*) code=$PREFLIGHT; [ -z "$code" ] || echo "preflight: GPU 0: another process uses it" ;;
    *experiment=nightly*) code=$SWEEP; [ -z "$STOPPED" ] || kill -INT $PPID ;;
    *experiment=exact*) code=$EXACT_SWEEP ;;
    *"analysis gate"*) code=$EXACT_GATE ;;
    *bench.regress*) code=$TIME_GATE; [ -z "$CRASHED" ] || echo "Traceback (most recent call last):" ;;
    *"analysis compare"*) code=$LAST_NIGHT ;;
    *"-m pytest"*) code=$HOT_PATHS ;;
    *"-m claims"*) code=$CLAIMS ;;
    *bench.tracking*) code=$MLFLOW ;;
esac
echo "a | line"
exit "${{code:-0}}"
"""
"""A python that runs no step, and exits with the status that a variable of the step's name holds."""


def heed_interrupts() -> None:
    """A shell cannot trap a signal that was ignored when it began, as SIGINT is in a background job."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def night(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(**variables: object) -> tuple[int, str]:
        """The exit code of the night and its summary."""
        before = set(tmp_path.glob("*/summary.md"))
        named = {"PYTHON": str(python), "NIGHTS": str(tmp_path), "BASE": "nowhere"}
        named |= {name: str(value) for name, value in variables.items()}
        done = subprocess.run(
            [SCRIPT],
            env=os.environ | named,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=heed_interrupts,
        )
        (written,) = set(tmp_path.glob("*/summary.md")) - before
        return done.returncode, written.read_text()

    return run


def commands(text: str) -> list[str]:
    return text.split("By hand:")[1].split(summary.FENCE)[1].strip().splitlines()


def test_a_night_runs_all_checks(night: Callable[..., tuple[int, str]]) -> None:
    code, text = night()
    assert code == 0 and text.startswith("# Nightly: nothing is worse\n")
    named = [name for name in summary.STEPS if f"| {name} | ok |" in text]
    assert named == list(summary.STEPS)
    _, sweep, _, gate, timed, *_ = commands(text)
    assert sweep.startswith("python -m bench experiment=nightly engine=native workload=digits")
    assert gate.endswith("--baseline results/reference/cpu-gloo/exact.json")
    assert timed.startswith("python -m bench.regress --base nowhere ")
    assert "| last-night | ok | 0 s | no earlier night here |" in text
    assert "| exact-gate | ok | 0 s | a / line | `logs/exact-gate.log` |" in text


@pytest.mark.parametrize(("gpus", "worlds"), [(1, "1"), (2, "1,2"), (8, "1,2,8")])
def test_with_gpus_the_frozen_sweep_is_fitted_to_their_number_alone(
    gpus: int, worlds: str, night: Callable[..., tuple[int, str]]
) -> None:
    _, sweep, _, _, timed, *_ = commands(night(GPUS=gpus)[1])
    assert f"experiment=nightly gpus={worlds} tracking=none hydra" in sweep
    assert timed.endswith(f" gpus={gpus}")


@pytest.mark.parametrize(
    ("variables", "expected", "title"),
    [
        ({"EXACT_GATE": 3, "LAST_NIGHT": 1, "MLFLOW": 1, "EXACT_SWEEP": 1}, 0, "nothing is worse"),
        ({"SWEEP": 1, "TIME_GATE": 1}, 1, "sweep, time-gate found something"),
        ({"SWEEP": 1, "TIME_GATE": 2}, 2, "sweep found something; time-gate could not run"),
        ({"EXACT_SWEEP": 2}, 2, "exact-sweep could not run"),
        ({"HOT_PATHS": 1}, 2, "hot-paths could not run"),
        ({"WEEKDAY": 7, "CLAIMS": 1}, 1, "claims found something"),
        ({"WEEKDAY": 6, "CLAIMS": 1}, 0, "nothing is worse"),
        ({"TIME_GATE": 1, "CRASHED": 1}, 2, "time-gate could not run"),
    ],
)
def test_the_night_exits_as_its_worst_step_after_all_steps(
    variables: dict[str, int], expected: int, title: str, night: Callable[..., tuple[int, str]]
) -> None:
    code, text = night(**variables)
    assert (code, text.splitlines()[0]) == (expected, f"# Nightly: {title}")
    assert "| mlflow | " in text


def test_an_unfit_machine_measures_nothing(night: Callable[..., tuple[int, str]]) -> None:
    code, text = night(PREFLIGHT=1)
    assert code == 2
    assert text.startswith("# Nightly: the machine is not fit (GPU 0); nothing was measured")
    assert commands(text) == [line for line in commands(text) if "preflight" in line]


def test_an_interrupted_night_has_a_summary(night: Callable[..., tuple[int, str]]) -> None:
    code, text = night(STOPPED=1)
    assert code == 130
    assert text.startswith("# Nightly: interrupted after preflight")


@pytest.mark.parametrize(
    ("variables", "judged"), [({}, True), ({"TIME_GATE": 1}, True), ({"TIME_GATE": 2}, False), ({"STOPPED": 1}, False)]
)
def test_the_next_night_compares_with_the_commit_that_the_time_gate_judged(
    variables: dict[str, int], judged: bool, night: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    night(**variables)
    assert [path.read_text().strip() for path in tmp_path.glob("*/judged")] == ([HEAD] if judged else [])
    (tmp_path / "2001-01-01").mkdir()
    (tmp_path / "2001-01-01" / "judged").write_text("f" * 40)  # a commit that this checkout lacks
    base = HEAD if judged else "HEAD~1"
    assert f"base of the time gate: `{base}`" in night(BASE="")[1]


def test_the_last_night_is_the_newest_with_records(night: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    for name in ("2026-01-01", "2026-01-02"):
        write_all([cell()], tmp_path / name / "sweep")
    (tmp_path / "2026-01-03" / "sweep" / "records").mkdir(parents=True)
    (compare,) = (line for line in commands(night()[1]) if "analysis compare" in line)
    assert f" {tmp_path}/2026-01-02/sweep " in compare


def test_the_summary_shows_first_what_is_worse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, logs = tmp_path / "page.md", tmp_path / "logs"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    write_all([cell(), bare("failed", "rank 0:\n ValueError", 3, 2), bare("unsupported", "no", 1)], tmp_path / "sweep")
    logs.mkdir()
    for name, code in (("preflight", 0), ("sweep", 1), ("time-gate", 4)):
        (logs / f"{name}.log").write_text(f"$ python -m {name}\n" + "line\n" * 50 + "last\n")
        (logs / f"{name}.code").write_text(f"{code} 12\n")
    title, code = summary.write(tmp_path)
    text = (tmp_path / "summary.md").read_text()
    assert (title, code) == ("Nightly: sweep found something; time-gate could not run", 2)
    assert text.startswith(f"# {title}\n") and page.read_text() == text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## sweep: worse", "## time-gate: exited with status 4", "## preflight", "## Steps"]
    assert "- torch-s3-n2-digits-fp32: failed: rank 0: ValueError" in text and "unsupported" not in text
    assert "... 11 lines before\nline\n" in text
    assert "| sweep | worse | 12 s | last | `logs/sweep.log` |" in text


@pytest.mark.parametrize("timed", re.findall(r'timed="(.*)"', SCRIPT.read_text()), ids=["gpu", "cpu"])
def test_the_cells_that_a_night_times_are_such_as_the_time_gate_takes(timed: str) -> None:
    words = timed.replace("$gpus", "8").split()
    configs, _ = composed(CONF, [*words, "tracking=none", *([] if "repeats=" in timed else ["repeats=20"])])
    check(configs)
    assert configs[0].repeats >= time_gate.least_rounds(len(configs))


def test_the_frozen_baseline_is_one_that_the_gate_reads() -> None:
    baseline = counter_check.read(ROOT / "results/reference/cpu-gloo/exact.json")
    assert {entry["status"] for entry in baseline.cells.values()} == {"ok", "unsupported"}
    ran = [name for name, entry in baseline.cells.items() if entry["status"] == "ok"]
    stages = {(baseline.engines[name], name.split(",")[0].split()[-1]) for name in ran}
    for engine in ("native", "torch", "deepspeed"):
        assert {stage for other, stage in stages if other == engine} == {"0", "1", "2", "3"}
    assert {entry["parity"] for entry in baseline.cells.values() if "parity" in entry} == {"passed"}
    assert baseline.reason
