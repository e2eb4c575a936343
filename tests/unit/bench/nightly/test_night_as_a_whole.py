"""A night from its preflight to its summary, whatever happens within."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.nightly import __main__ as nightly
from bench.nightly import preflight, steps
from bench.nightly.preflight import Finding
from bench.nightly.steps import Outcome, Step
from tests.unit.bench.nightly.test_nightly import OK, step


def a_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finding: Finding, *planned: Step) -> tuple[int, str]:
    """The exit code and the summary of a night of these steps."""
    monkeypatch.setattr(preflight, "preflight", lambda place: [finding])
    monkeypatch.setattr(nightly, "steps", lambda night: list(planned))
    code = nightly.main(["--home", str(tmp_path)])
    (written,) = tmp_path.glob("*/summary.md")
    return code, written.read_text()


def test_an_unfit_machine_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = Finding("GPU 0", "97 % busy", "wrong", "another process uses it")
    code, text = a_night(tmp_path, monkeypatch, busy, step(0))
    assert code == 2
    assert "preflight: GPU 0: another process uses it" in capsys.readouterr().err
    assert text.startswith("# Nightly: the machine is not fit (GPU 0); nothing was measured")
    assert not list(tmp_path.glob("*/logs/*"))


@pytest.mark.parametrize(("codes", "expected"), [((0, 0), 0), ((0, 3), 0), ((1, 0), 1), ((1, 9), 2)])
def test_the_night_ends_as_its_worst_step(
    codes: tuple[int, int], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = a_night(tmp_path, monkeypatch, OK, *(step(code, name=f"step {at}") for at, code in enumerate(codes)))
    assert code == expected
    assert "| step 1 |" in text, "the steps after one that fails are run"


def test_an_interrupted_night_has_a_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(planned: Step, log: Path) -> Outcome:
        if planned.name == "second":
            raise KeyboardInterrupt
        return steps.run(planned, log)

    monkeypatch.setattr(nightly, "run", interrupted)
    code, text = a_night(tmp_path, monkeypatch, OK, step(1, name="first"), step(0, name="second"))
    assert code == 130
    assert text.startswith("# Nightly: first found something; interrupted in second")


def test_a_night_that_is_interrupted_in_its_preflight_has_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> list[dict[str, str]]:
        raise KeyboardInterrupt

    monkeypatch.setattr(preflight, "gpus", interrupted)
    assert nightly.main(["--home", str(tmp_path)]) == 130
    (written,) = tmp_path.glob("*/summary.md")
    assert written.read_text().startswith("# Nightly: interrupted in preflight")


@pytest.mark.parametrize(("code", "judged"), [(0, True), (1, True), (2, False)])
def test_a_night_keeps_the_commit_that_its_time_gate_judged(
    code: int, judged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_night(tmp_path, monkeypatch, OK, step(0, name="sweep"), step(code), step(0, name="mlflow"))
    assert steps.judged_commit(tmp_path) == (steps.resolved("HEAD") if judged else None)


def test_the_preflight_can_be_run_by_itself() -> None:
    command = [sys.executable, "-m", "bench.nightly.preflight"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert {"source", "versions", "processors", "disk", "shared memory", "GPUs"} <= set(rows), done
    assert (done.returncode == 0) == (not done.stderr.startswith("preflight:"))


def test_the_frozen_baseline_is_one_that_the_gate_reads() -> None:
    from analysis.comparison.counter_check import read

    held = read(steps.ROOT / steps.EXACT)
    statuses = [entry["status"] for entry in held.cells.values()]
    assert set(statuses) == {"ok", "unsupported"}
    stages = {
        (held.engines[name], name.split(",")[0].split()[-1])
        for name, entry in held.cells.items()
        if entry["status"] == "ok"
    }
    for engine in ("native", "torch", "deepspeed"):
        assert {stage for other, stage in stages if other == engine} == {"0", "1", "2", "3"}
    assert {entry["parity"] for entry in held.cells.values() if "parity" in entry} == {"passed"}
    assert json.loads((steps.ROOT / steps.EXACT).read_text())["reason"]
