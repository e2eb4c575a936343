"""Commands that start host servers get the secret by standard input, and one that has ended runs again once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench.checks import ConfigError
from bench.launch.cluster import starter as starters
from bench.launch.cluster.starter import Commands, Loss
from tests.waiting import wait_until

ENDED = Loss("its host server ended", time.monotonic() - 600, has_ended=True)


def test_a_command_that_has_ended_runs_again_once(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    starter = Commands({0: ["sh", "-c", f"cat >> {secrets}; exit 3"], 1: ["sleep", "600"]}, "shared")
    try:
        assert wait_until(lambda: bool(starter.failure(0)))
        assert starter.failure(0).endswith("exited with status 3")
        assert (
            starter.failure(1) == starter.failure(2) == ""
            and not starter.restart(1, ENDED)
            and not starter.restart(2, ENDED)
        )
        assert starter.restart(0, ENDED)
        assert wait_until(lambda: bool(starter.failure(0)))
        assert not starter.restart(0, ENDED)
        assert secrets.read_text() == "shared\nshared\n"
    finally:
        starter._processes[1].kill()
        starter.end()


def test_a_command_that_starts_all_hosts_fails_for_all() -> None:
    starter = Commands({}, "shared", for_all=["false"])
    assert wait_until(lambda: bool(starter.failure(1)))
    assert not starter.restart(0, ENDED)
    starter.end()


def test_of_hosts_with_one_command_the_one_whose_server_ended_is_started_again_by_its_own() -> None:
    starter = Commands({1: ["false"]}, "shared", for_all=["sleep", "600"])
    try:
        assert not starter.restart(1, Loss("no heartbeat", ENDED.at_s)), "it may only be cut off"
        assert not starter.restart(1, Loss("closed", time.monotonic(), has_ended=True)), "it may join again by itself"
        assert starter.restart(1, ENDED) and not starter.restart(1, ENDED)
        assert wait_until(lambda: bool(starter.failure(1)))
        assert "false ... exited with status 1" in starter.failure(1) and starter.failure(0) == ""
    finally:
        assert starter._of_all
        starter._of_all.kill()
        starter.end()


def test_commands_that_stay_are_terminated_and_then_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starters, "LEAVE_S", 0.0)
    monkeypatch.setattr(starters, "TERMINATED_S", 0.5)
    stubborn = ["sh", "-c", f"trap : TERM; touch {tmp_path / 'ready'}; while :; do sleep 0.1; done"]
    starter = Commands({0: ["sleep", "600"], 1: stubborn}, "shared")
    assert wait_until((tmp_path / "ready").exists)
    starter.end()
    assert [process.returncode for process in starter._processes.values()] == [-15, -9]


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match="no-such-program cannot be run to start host servers"):
        Commands({0: ["no-such-program"]}, "shared")
