"""A parent counts as stopped if two looks in a row see it so."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator

import pytest

from bench.launch.forkserver import parent_watch
from bench.launch.forkserver.parent_watch import ParentWatch
from bench.measure.machine import process_stat
from tests.waiting import wait_until


@pytest.fixture
def stopped() -> Iterator[int]:
    """A process that has stopped itself."""
    with subprocess.Popen(["sh", "-c", "kill -STOP $$"]) as process:
        assert wait_until(lambda: process_stat.is_stopped(process.pid))
        yield process.pid
        process.kill()


def test_a_parent_that_stays_stopped_is_noticed(stopped: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent_watch, "LOOK_S", 0.0)
    watch = ParentWatch(is_needed=True)
    assert not watch.sees_stopped(), "the parent of this test runs"
    monkeypatch.setattr(parent_watch.os, "getppid", lambda: stopped)
    assert not watch.sees_stopped() and watch.sees_stopped()


def test_a_launch_on_one_machine_looks_at_no_parent(stopped: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent_watch.os, "getppid", lambda: stopped)
    watch = ParentWatch(is_needed=False)
    assert watch.due_s == math.inf
    assert not watch.sees_stopped() and not watch.sees_stopped()
