"""A program that fails, hangs or is not there gives a reason, never an empty answer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from analysis.table.provenance import environment_rows
from bench.measure.machine import interference, limits
from bench.measure.machine.command import CommandOutput, output
from results.launches import Launch
from tests.fakes import cell


def test_a_program_that_fails_gives_its_own_reason_without_folders() -> None:
    fails = [sys.executable, "-c", "import sys; sys.exit('fatal: no /home/someone/file here')"]
    outcome = output(fails)
    assert (outcome.text, outcome.is_missing) == ("", False)
    assert outcome.error.endswith(": fatal: no .../file here (status 1)")
    assert output([sys.executable, "-c", "print(1)"]) == CommandOutput("1\n")
    assert output(["no-such-program"]) == CommandOutput(error="no-such-program is not installed", is_missing=True)
    assert "did not answer" in output([sys.executable, "-c", "import time; time.sleep(9)"], timeout_s=0.2).error


def test_a_counter_that_cannot_be_read_is_named_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.stat").mkdir()
    monkeypatch.setattr(limits, "groups", lambda controller: [tmp_path])
    unread = interference.read_machine().unread
    assert unread == {"throttling by the CPU quota": "cpu.stat: Is a directory"}
    record = cell(launches=[Launch(0, "", {}, [], not_measured=unread)])
    assert ("not_measured.throttling by the CPU quota", "cpu.stat: Is a directory") in environment_rows([record])
