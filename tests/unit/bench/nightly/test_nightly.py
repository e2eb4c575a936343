"""The night: what is checked first, what is run, what its exit codes mean, and what the summary says."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from analysis.comparison import time_gate
from bench.groups import CONF
from bench.measure.machine.command import Output
from bench.nightly import preflight, steps, summary
from bench.nightly.preflight import Finding
from bench.nightly.steps import Night, Outcome, Step
from bench.regress.__main__ import check, composed
from benchmarks import against_earlier
from results.source import Source
from tests.fakes import bare, cell, write_all

OK = Finding("disk", "90 GiB free", "ok")
GPU = {
    "index": "0",
    "uuid": "GPU-a",
    "name": "NVIDIA H100",
    "driver_version": "580.10",
    "persistence_mode": "Enabled",
    "utilization.gpu": "0 %",
    "memory.used": "4 MiB",
    "temperature.gpu": "31",
    "clocks.sm": "345 MHz",
    "clocks.max.sm": "1980 MHz",
}
SEEN = {"torch": "2.15.0", "gpus": 1, "nccl": "2.29.7"}


def wrong(found: list[Finding]) -> list[str]:
    return [finding.what for finding in found if finding.verdict == "wrong"]


def test_an_idle_gpu_with_nccl_is_fit() -> None:
    assert [finding.verdict for finding in preflight.graphics([GPU], SEEN)] == ["ok"] * 5


@pytest.mark.parametrize(
    ("driver", "seen", "what"),
    [
        ([GPU | {"utilization.gpu": "97 %"}], SEEN, "GPU 0"),
        ([GPU | {"memory.used": "30000 MiB"}], SEEN, "GPU 0"),
        ([GPU], SEEN | {"nccl": None}, "NCCL"),
        ([GPU], SEEN | {"gpus": 0}, "GPUs"),
        ([GPU, GPU | {"index": "1", "name": "NVIDIA A100"}], SEEN | {"gpus": 2}, "GPUs"),
        ([], {}, "torch"),
    ],
)
def test_what_spoils_a_night_on_gpus_is_named(driver: list[dict[str, str]], seen: dict[str, Any], what: str) -> None:
    assert wrong(preflight.graphics(driver, seen)) == [what]


def test_a_driver_that_is_not_kept_up_is_only_noted() -> None:
    found = preflight.graphics([GPU | {"persistence_mode": "Disabled"}], SEEN)
    assert [(finding.what, finding.verdict) for finding in found if finding.verdict != "ok"] == [
        ("persistence", "note")
    ]


def test_a_machine_without_gpus_may_run_in_small() -> None:
    assert [finding.verdict for finding in preflight.graphics([], SEEN | {"gpus": 0, "nccl": None})] == ["note"]


def test_only_visible_gpus_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [", ".join((GPU | {"index": str(at), "uuid": f"GPU-{at}f"}).values()) for at in range(3)]
    monkeypatch.setattr(preflight.environment, "output", lambda command: Output("\n".join(lines)))
    for visible, expected in (("1", ["1"]), ("GPU-2f,0", ["0", "2"]), ("", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [gpu["index"] for gpu in preflight.gpus()] == expected
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert len(preflight.gpus()) == 3


def test_versions_are_held_against_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "uv.lock"
    lock.write_text('[[package]]\nname = "torch"\nversion = "2.15.0"\n[[package]]\nname = "rich"\nversion = "13.0"\n')
    assert preflight.locked({"torch": "2.15.0", "unknown-to-it": "1"}, lock).verdict == "ok"
    found = preflight.locked({"torch": "2.14.0", "rich": "13.0"}, lock)
    assert (found.verdict, found.found) == ("wrong", "1 of 2 differ")
    assert "torch 2.14.0" in found.advice
    assert preflight.locked({}, tmp_path / "none").verdict == "wrong"


def test_a_full_disk_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    assert preflight.disk("disk", tmp_path / "not" / "there", 0).verdict == "ok"
    assert preflight.disk("disk", tmp_path, 2**60).verdict == "wrong"


def night(tmp_path: Path, gpus: int = 0, previous: Path | None = None, base: str = "nowhere") -> Night:
    return Night(tmp_path / "tonight", tmp_path, base, gpus, None, previous)


def commands(night: Night) -> dict[str, list[str]]:
    return {step.name: [steps.shown(command) for command in step.commands] for step in steps.steps(night)}


def test_hot_paths_are_compared_by_their_fastest_round_with_earlier_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(number: int, **fastest_s: float) -> None:
        timers = {"launch": "perf_counter"}
        entries = [
            {"name": name, "options": {"timer": timers.get(name, "process_time")}, "stats": {"min": seconds}}
            for name, seconds in fastest_s.items()
        ]
        (tmp_path / "Linux").mkdir(exist_ok=True)
        (tmp_path / "Linux" / f"{number:04}_commit.json").write_text(json.dumps({"benchmarks": entries}))

    def compare() -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["against_earlier", str(tmp_path)])
        code = against_earlier.main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    assert compare()[0] == 2, "nothing is saved"
    save(1, pack=1.0, launch=1.0)
    assert compare()[0] == 0, "the first has nothing to be slower than"
    save(2, pack=9.0, launch=1.0)  # disturbed
    save(3, pack=1.0, launch=1.0)
    save(4, pack=1.4, launch=2.9)
    assert compare()[0] == 0
    save(5, pack=1.0, launch=4.0, new=1.0)
    code, printed = compare()
    assert code == 1
    assert "1 of 2 are slower than in 4 earlier runs" in printed
    assert [line.split()[0] for line in printed.splitlines() if "slower: 3 or more" in line] == ["launch"]
    save(6, pack=1.0)
    code, printed = compare()
    assert code == 2 and "not timed, as they were in the run before: launch, new" in printed
    save(7, pack=1.0)
    assert compare()[0] == 0, "what was taken away is said once"


def test_a_night_runs_all_gates_and_logs_them(tmp_path: Path) -> None:
    run = commands(night(tmp_path))
    assert list(run) == ["sweep", "exact gate", "time gate", "last night", "hot paths", "mlflow"]
    assert "python -m bench experiment=nightly engine=native workload=digits" in run["sweep"][0]
    assert run["exact gate"][1].endswith("--baseline results/reference/cpu-gloo/exact.json")
    assert run["time gate"][0].startswith("python -m bench.regress --base nowhere ")
    assert run["last night"] == [], "there is none"


def test_with_gpus_the_frozen_sweep_is_fitted_to_their_number_alone(tmp_path: Path) -> None:
    for gpus, worlds in ((1, "1"), (2, "1,2"), (8, "1,2,8")):
        sweep = commands(night(tmp_path, gpus))["sweep"][0]
        assert f"experiment=nightly gpus={worlds} tracking=none hydra" in sweep


def test_code_is_not_timed_against_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = steps.resolved("HEAD")
    monkeypatch.setattr(steps.source, "collect", lambda arguments: Source("", commit=head))
    assert commands(night(tmp_path, base="HEAD"))["time gate"] == []
    monkeypatch.setattr(steps.source, "collect", lambda arguments: Source("", commit=head, patch="+"))
    assert commands(night(tmp_path, base="HEAD"))["time gate"] != []


def test_the_last_night_is_the_newest_with_records(tmp_path: Path) -> None:
    for name in ("2026-01-01", "2026-01-02"):
        write_all([cell()], tmp_path / name / "sweep")
    (tmp_path / "2026-01-03" / "sweep" / "records").mkdir(parents=True)
    assert steps.earlier_sweep(tmp_path) == tmp_path / "2026-01-02" / "sweep"


def test_the_base_is_the_newest_commit_that_a_time_gate_judged(tmp_path: Path) -> None:
    head = steps.resolved("HEAD")
    assert steps.judged_commit(tmp_path) is None
    for name, commit in (("2026-01-01", head), ("2026-01-02", "f" * 40)):
        (tmp_path / name).mkdir()
        (tmp_path / name / steps.JUDGED).write_text(commit)
    write_all([cell()], tmp_path / "2026-01-03" / "sweep")  # cut off before its time gate
    assert steps.judged_commit(tmp_path) == head, "this checkout has no other that was judged"


def step(*codes: int, name: str = "time gate", says: str = "a line", earlier: tuple[int, ...] = (0,)) -> Step:
    script = "import sys; print(sys.argv[1], file=sys.stderr); sys.exit(int(sys.argv[2]))"
    made = [[sys.executable, "-c", script, f"{says} {at}", str(code)] for at, code in enumerate(codes)]
    return Step(name, made, {0: "ok", 1: "found", 3: "note"}, earlier=earlier)


@pytest.mark.parametrize(
    ("codes", "verdict", "decides"),
    [
        ((0,), "ok", 0),
        ((1,), "found", 0),
        ((3,), "note", 0),
        ((2,), "not run", 0),
        ((0, 1), "found", 1),
        ((1, 3), "note", 1),
        ((2, 0), "not run", 0),
        ((2, 1), "not run", 0),
    ],
)
def test_a_step_is_judged_by_its_last_command_unless_an_earlier_one_left_it_nothing_to_judge(
    codes: tuple[int, ...], verdict: str, decides: int, tmp_path: Path
) -> None:
    outcome = steps.run(step(*codes, earlier=(0, 1)), tmp_path / "logs" / "step.log")
    assert outcome.verdict == verdict
    assert outcome.said() == [f"a line {decides}"]
    assert outcome.log is not None and f"a line {len(codes) - 1}" in outcome.log.read_text(), "all are run"
    if verdict == "not run":
        assert outcome.reason == "ended with code 2"


def test_only_cells_that_fail_are_judged_by_the_command_that_follows(tmp_path: Path) -> None:
    earlier = {step.name: step.earlier for step in steps.steps(night(tmp_path))}
    assert earlier.pop("exact gate") == (0, 1)
    assert set(earlier.values()) == {(0,)}


@pytest.mark.parametrize("command", [["-c", "raise ValueError"], ["-m", "bench.not_there"]])
def test_a_command_that_crashes_found_nothing(command: list[str], tmp_path: Path) -> None:
    """Python ends both with 1, as a gate does that found something."""
    crashing = Step("time gate", [[sys.executable, *command]], {0: "ok", 1: "found"})
    assert steps.run(crashing, tmp_path / "step.log").verdict == "not run"


@pytest.mark.parametrize("timed", [steps.CPU_TIMED, (*steps.GPU_TIMED, "gpus=8", "repeats=20")], ids=["cpu", "gpu"])
def test_the_cells_that_a_night_times_are_such_as_the_time_gate_takes(timed: tuple[str, ...]) -> None:
    configs, _ = composed(CONF, [*timed, "tracking=none"])
    check(configs)
    assert configs[0].repeats >= time_gate.least_rounds(len(configs))


def test_a_step_that_is_stopped_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(io.StringIO):
        def write(self, text: str) -> int:
            if text == "ready\n":
                raise KeyboardInterrupt
            return len(text)

    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def start(*arguments: Any, **named: Any) -> subprocess.Popen[str]:
        started.append(popen(*arguments, **named))
        return started[-1]

    monkeypatch.setattr(steps.subprocess, "Popen", start)
    script = "import time; print('ready', flush=True); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        steps.stream([sys.executable, "-c", script], Stopped())
    assert started[0].poll() is not None


def test_the_summary_says_first_what_is_worse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    write_all([cell(), bare("failed", "rank 0:\n ValueError", 3, 2), bare("unsupported", "no", 1)], tmp_path / "sweep")
    outcomes = [
        steps.run(step(1, name="sweep"), tmp_path / "logs" / "sweep.log"),
        steps.run(step(0, name="exact gate", says="all | equal"), tmp_path / "logs" / "exact-gate.log"),
        steps.run(step(4, name="time gate"), tmp_path / "logs" / "time-gate.log"),
    ]
    title = summary.write(tmp_path, [OK], outcomes, base="v1", interrupted="")
    text = (tmp_path / "summary.md").read_text()
    assert title == "Nightly: sweep found something; time gate could not be run"
    assert text.startswith(f"# {title}\n") and page.read_text() == text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## sweep: worse", "## time gate: ended with code 4", "## Machine", "## Steps"]
    assert "- torch-s3-n2-digits-fp32: failed: rank 0: ValueError" in text
    assert "unsupported" not in text
    assert "| exact gate | ok | 0 s | all / equal 0 | `logs/exact-gate.log` |" in text


def test_a_night_in_which_nothing_is_worse_says_so(tmp_path: Path) -> None:
    outcome = Outcome(Step("last night", [], {}, "no earlier night here"), "ok", "no earlier night here", 0.0, None)
    assert summary.write(tmp_path, [OK], [outcome], base="v1", interrupted="") == "Nightly: nothing is worse"
