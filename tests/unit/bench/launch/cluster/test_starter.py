"""Commands that start host servers get the secret by standard input, and one that has ended runs again once."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.checks import ConfigError
from bench.launch.cluster.starter import Commands
from tests.waiting import wait_until


def test_a_command_that_has_ended_runs_again_once(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    starter = Commands({0: ["sh", "-c", f"cat >> {secrets}; exit 3"], 1: ["sleep", "600"]}, "shared")
    try:
        assert wait_until(lambda: bool(starter.failure(0)))
        assert starter.failure(0).endswith("exited with status 3")
        assert starter.failure(1) == starter.failure(2) == "" and not starter.restart(1) and not starter.restart(2)
        assert starter.restart(0)
        assert wait_until(lambda: bool(starter.failure(0)))
        assert not starter.restart(0)
        assert secrets.read_text() == "shared\nshared\n"
    finally:
        starter._processes[1].kill()
        starter.end()


def test_a_command_that_starts_all_hosts_fails_for_all_and_is_not_started_again() -> None:
    starter = Commands({0: ["false"]}, "shared", shared=True)
    assert wait_until(lambda: bool(starter.failure(1)))
    assert not starter.restart(0)
    starter.end()


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match="no-such-program cannot be run to start host servers"):
        Commands({0: ["no-such-program"]}, "shared")
