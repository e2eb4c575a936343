"""Claims on real ranks and in real sweeps: what a program's ranks return, and which line says why it ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from claims import suite
from claims.suite import ExperimentError, Suite

PROGRAMS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "sound": ("tests.faulty_ranks:killed", 2, {"arguments": {"victim": None}}),
    "killed": ("tests.faulty_ranks:killed", 3, {"arguments": {"victim": 1}}),
    "raising": ("tests.faulty_ranks:raising", 2, {"arguments": {}}),
    "slow": ("tests.faulty_ranks:slow", 2, {"arguments": {}, "timeout_s": 1}),
}
RUN_ALL = """
import json, sys
from claims.ranks import run

results = {}
for name, (function, count, settings) in json.loads(sys.argv[1]).items():
    try:
        results[name] = run(function, count, **settings)
    except RuntimeError as error:
        results[name] = str(error)
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def returned() -> dict[str, Any]:
    """By program, what its ranks returned, or the error: in a process of its own, for a fork copies only one thread."""
    command = [sys.executable, "-c", RUN_ALL, json.dumps(PROGRAMS)]
    done = subprocess.run(command, cwd=suite.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    return results


def test_ranks_return_what_their_function_does_and_a_killed_one_nothing(returned: dict[str, Any]) -> None:
    assert (returned["sound"], returned["killed"]) == ([2, 2], [3, None, 3])


def test_a_rank_that_raises_ends_those_that_wait_for_it(returned: dict[str, Any]) -> None:
    assert "ValueError: rank 1 is unhappy" in returned["raising"]


def test_ranks_that_are_not_done_in_time_are_ended(returned: dict[str, Any]) -> None:
    assert "not all of 2 ranks were done after 1 s" in returned["slow"]


def test_a_dead_rank_fails_a_program_that_did_not_expect_it(tmp_path: Path) -> None:
    given = {"ranks": 2, "victim": 1}
    with pytest.raises(ExperimentError, match="rank 1 of 2 died"):
        Suite(tmp_path).program("tests.faulty_ranks:killed", **given)
    assert Suite(tmp_path).program("tests.faulty_ranks:killed", may_die=True, **given) == [2, None]


@pytest.mark.exhaustive
def test_a_program_that_fails_is_reported_by_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"ended with 1: .*ValueError: rank 1 is unhappy"):
        Suite(tmp_path).program("tests.faulty_ranks:raising", ranks=2)
    assert suite.ROOT.joinpath("claims").is_dir()


def test_a_sweep_that_is_rejected_is_reported_by_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"ended with 2: .*stage=5"):
        Suite(tmp_path).sweep("stage=5")
