"""Claims on real ranks and in real sweeps: what a program's ranks return, and which line says why it ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from claims import suite
from claims.suite import ExperimentError, Suite


def ran(function: str, count: int, **settings: Any) -> str:
    """What ranks printed, or what they ended with: in a process of its own, since a fork copies only one thread."""
    code = f"from claims.ranks import run; print(run({function!r}, {count}, **{settings!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=suite.ROOT, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_ranks_return_what_their_function_does() -> None:
    assert ran("tests.faulty_ranks:killed", 2, arguments={"victim": None}) == "[2, 2]\n"


@pytest.mark.exhaustive
def test_a_killed_rank_returns_nothing() -> None:
    assert ran("tests.faulty_ranks:killed", 3, arguments={"victim": 1}) == "[3, None, 3]\n"


def test_a_rank_that_raises_ends_those_that_wait_for_it() -> None:
    assert "ValueError: rank 1 is unhappy" in ran("tests.faulty_ranks:raising", 2, arguments={})


def test_ranks_that_are_not_done_in_time_are_ended() -> None:
    output = ran("tests.faulty_ranks:slow", 2, arguments={}, timeout_s=1)
    assert "not all of 2 ranks were done after 1 s" in output


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
