"""``dry_run=true``: the plan, its time and its memory are printed, and nothing is left or measured."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from bench.measure.machine.source import ROOT
from tests import command_line

PLAN = ("workload=mlp", "workload.width=64", "repeats=6", "steps=5", "tracking=none", "dry_run=true")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return command_line.run("bench", *arguments, cwd=ROOT)


@pytest.mark.parametrize("many", [True, False])
def test_a_dry_run_prints_its_plan_and_leaves_no_folder(tmp_path: Path, many: bool) -> None:
    folder = tmp_path / "sweep"
    swept = ["-m", "stage=0,3", "gpus=1,2"] if many else ["stage=3", "gpus=2"]
    ended = run(*swept, *PLAN, f"hydra.sweep.dir={folder}")
    assert ended.returncode == 0, ended.stderr
    cells = 4 if many else 1
    assert re.search(rf"^{cells} configurations, {6 * cells} timed launches, about \d", ended.stdout, re.M)
    assert not folder.exists()


def test_the_predicted_memory_is_that_of_the_formulas() -> None:
    ended = run("-m", "stage=0,3", "gpus=2", *PLAN, "hydra.sweep.dir=unused-by-a-dry-run")
    rows = dict(line.split()[0::2][:2] for line in ended.stdout.splitlines() if line.startswith("native-"))
    state_mib = {cell.split("-")[1]: float(state) for cell, state in rows.items()}
    parameters = 4 * (64 * 64 + 64)
    assert state_mib["s0"] == pytest.approx(16 * parameters / 2**20, rel=0.01)  # fp32 and Adam: 4 + 4 + 8 bytes
    assert state_mib["s3"] == pytest.approx(8 * parameters / 2**20, rel=0.02)
