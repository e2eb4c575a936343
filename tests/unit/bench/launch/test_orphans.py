"""Orphans are ended, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from bench.launch import orphans

ENDS = """
import subprocess
from bench.launch.orphans import children, end_orphans
left, spared = (subprocess.Popen(["sleep", "600"]) for _ in range(2))
ended = subprocess.Popen(["true"])
assert set(children()) == {left.pid, ended.pid, spared.pid}
end_orphans([spared.pid])
assert children() == [spared.pid]
spared.kill()
"""


@pytest.fixture
def marked() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()


def test_all_children_but_the_spared_are_ended_and_reaped() -> None:
    subprocess.run([sys.executable, "-c", ENDS], check=True)


def test_only_processes_with_the_mark_are_killed(marked: list[subprocess.Popen[bytes]]) -> None:
    mark, other = uuid.uuid4().hex, uuid.uuid4().hex
    for value in (mark, mark, other):
        variables = os.environ | {orphans.MARK: value}
        marked.append(
            subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], env=variables, stdin=-1, stdout=-1)
        )
        assert marked[-1].stdout.readline()
    assert orphans.kill_marked(mark) == 2
    assert [process.wait() for process in marked[:2]] == [-9, -9]
    assert marked[2].poll() is None
    assert orphans.kill_marked(mark) == 0
