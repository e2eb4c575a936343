"""Every command by itself: its help, and for bad input a status and one line without a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.measure.machine.source import ROOT
from tests import command_line
from tests.fakes import cell, write_all

SWEEP = "SWEEP"
"""Stands for the folder of a sweep that is no sweep of experiment=exact."""
EXACT = str(ROOT / "results" / "reference" / "cpu-gloo" / "exact.json")

COMMANDS = [
    *("bench", "bench.engines", "bench.regress", "bench.tracking", "bench.tracking import", "bench.tracking.ui"),
    *("bench.preflight", "bench.nightly.summary", "claims", "analysis"),
    *(f"analysis {name}" for name in ("report", "advise", "compare", "noise", "history", "gate", "project")),
]

BAD = [
    ("bench stage=9", 2, "stage=9 is not valid; valid: 0, 1, 2, 3"),
    ("bench --stage 2", 2, "settings are written without dashes: stage=2"),
    ("bench stgae=2", 2, "did you mean stage?"),
    ("bench zzz=1", 2, "zzz is not a setting"),
    ("bench stage=0,1", 2, "add -m"),
    ("bench engine=nope", 2, "engine=nope is unknown; valid: "),
    ("bench workload=gpt workload.size=7B", 2, "size='7B' is not valid; valid: tiny, 124M, 355M, 1.5B"),
    ("bench workload=mlp workload.width=foo", 2, "width='foo' is not valid; valid: a whole number"),
    ("bench workload=module:nope.there:Net", 2, "cannot import nope.there"),
    ("bench engine=torch engine.powersgd_rank=0", 2, "engine.powersgd_rank=0 is not valid; valid: a whole number"),
    ("bench engine=torch engine.static_graph=7", 2, "engine.static_graph=7 is not valid; valid: true, false"),
    ("bench resume=true hydra.sweep.dir=nowhere", 2, "resume=true found no earlier sweep"),
    ("bench dry_run=true resume=true hydra.sweep.dir=nowhere", 2, "leave out resume=true"),
    ("bench reproduce=nowhere.json", 2, "no such file"),
    ("bench.engines nope", 2, "engine nope is unknown; valid: "),
    ("bench.regress --base no-such-revision", 2, "no-such-revision"),
    ("bench.regress --base HEAD budget_s=9", 2, "budget_s=9 is not supported by bench.regress"),
    ("bench.tracking import nowhere", 1, "does not exist"),
    ("bench.tracking.ui --uri http://127.0.0.1:9", 2, "is a server and has a UI of its own"),
    ("claims A0", 2, "no claim A0; valid: "),
    ("analysis report nowhere", 2, "nowhere does not exist"),
    ("analysis advise nowhere", 2, "nowhere does not exist"),
    ("analysis noise nowhere", 2, "nowhere does not exist"),
    ("analysis history nowhere", 2, "nowhere does not exist"),
    ("analysis compare nowhere", 2, "compare needs two PATHs, and there is 1"),
    ("analysis compare nowhere nowhere", 2, "nowhere does not exist"),
    ("analysis compare nowhere nowhere --between stage=0,1", 2, "within one PATH; there are 2"),
    (f"analysis gate {SWEEP} --baseline nowhere.json", 2, "nowhere.json"),
    (f"analysis gate {SWEEP} --baseline {EXACT}", 2, "is in the baseline; measure it with: python -m bench experiment"),
]


def run(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    return command_line.run(*command.split(), cwd=place, variables={"COLUMNS": "100", "MLFLOW_TRACKING_URI": ""})


@pytest.mark.parametrize(
    "command",
    [pytest.param(name, marks=() if name in ("bench", "analysis") else pytest.mark.exhaustive) for name in COMMANDS],
)
def test_each_command_has_help(command: str, tmp_path: Path) -> None:
    ended = run(f"{command} --help", tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout) > 100
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


SLOW = ("powersgd_rank", "static_graph", "workload.width", "nope.there")
"""Parts of commands that start the fork server before they end, of which one is enough for each change."""


@pytest.mark.parametrize(
    ("command", "status", "line"),
    [pytest.param(*bad, marks=pytest.mark.exhaustive if any(part in bad[0] for part in SLOW) else ()) for bad in BAD],
)
def test_bad_input_ends_with_its_status_and_one_line(command: str, status: int, line: str, tmp_path: Path) -> None:
    sweep = write_all([cell()], tmp_path / "a-sweep")
    ended = run(command.replace(SWEEP, str(sweep)), tmp_path)
    assert ended.returncode == status, ended.stderr
    errors = [text for text in ended.stderr.splitlines() if not text.startswith(("usage:", "  "))]
    assert len(errors) == 1 and line in errors[0], ended.stderr
    assert not list(tmp_path.glob("results/runs/*")), "nothing is left of a request that could not be run"


def test_the_preflight_can_be_run_by_itself() -> None:
    command = [sys.executable, "-m", "bench.preflight"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert {"source", "versions", "processors", "disk", "shared memory", "GPUs"} <= set(rows), done
    assert (done.returncode == 0) == (not done.stderr.startswith("preflight:"))
    assert subprocess.run([*command, "--gpus"], capture_output=True, check=True).stdout.strip().isdigit()


@pytest.mark.parametrize("module", ["bench", "claims", "bench.regress"])
@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("3", 0)])
def test_the_processes_print_one_line_together_and_exit_with_2(
    module: str, rank: str, lines: int, tmp_path: Path
) -> None:
    arguments = ["--base", "HEAD"] if module == "bench.regress" else []
    ended = command_line.run(module, *arguments, cwd=tmp_path, variables={"RANK": rank, "WORLD_SIZE": "4"})
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == lines, ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_only_shows_a_configuration_makes_no_folder(tmp_path: Path) -> None:
    for arguments in (["--cfg", "job", "--resolve"], ["--info", "config"], ["--help"]):
        assert command_line.run("bench", *arguments, cwd=tmp_path).returncode == 0
        assert list(tmp_path.iterdir()) == []
