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


def test_a_dry_run_prints_its_plan_with_the_memory_of_the_formulas_and_leaves_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    ended = run("-m", "stage=0,3", "gpus=1,2", *PLAN, f"hydra.sweep.dir={folder}")
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^4 configurations, 24 timed launches, about \d", ended.stdout, re.M)
    assert not folder.exists()
    rows = dict(line.split()[0::2][:2] for line in ended.stdout.splitlines() if line.startswith("native-"))
    state_mib = {tuple(cell.split("-")[1:3]): float(state) for cell, state in rows.items()}
    parameters = 4 * (64 * 64 + 64)
    assert state_mib["s0", "n2"] == pytest.approx(16 * parameters / 2**20, rel=0.01)  # fp32 and Adam: 4 + 4 + 8 bytes
    assert state_mib["s3", "n2"] == pytest.approx(8 * parameters / 2**20, rel=0.02)


@pytest.mark.exhaustive
def test_a_dry_run_of_one_configuration_leaves_no_folder_either(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    ended = run("stage=3", "gpus=2", *PLAN, f"hydra.sweep.dir={folder}")
    assert ended.returncode == 0 and "1 configuration, 6 timed launches" in ended.stdout, ended.stderr
    assert not folder.exists()
