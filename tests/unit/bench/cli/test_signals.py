"""A command whose terminal or reader goes away comes to its own end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

OUTLIVES = """
import os, signal, sys
from terminal.tables import console
from bench.cli.signals import outlive_terminal
outlive_terminal()
"""
SAYS = """
for stream in (sys.stderr, sys.stdout):
    print("step time ± 1 ms", file=stream, flush=True)
    console(stderr=stream is sys.stderr).print("a table")
sys.exit(3)
"""


@pytest.mark.parametrize("gone", ["2>&1 | true", "2>/dev/full", ">/dev/full", "2>&-", ">&-", "2>&- >&-"])
def test_what_is_not_read_costs_nothing(gone: str) -> None:
    script = f'"$0" -c "$1" {gone}; exit ${{PIPESTATUS[0]}}'
    ended = subprocess.run(["bash", "-c", script, sys.executable, OUTLIVES + SAYS], check=False)
    assert ended.returncode == 3


def test_a_terminal_that_cannot_show_a_character_shows_something() -> None:
    command = [sys.executable, "-c", OUTLIVES + SAYS]
    ended = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=False)
    assert ended.returncode == 3 and ended.stderr == ended.stdout == b"step time +/- 1 ms\na table\n"


ON_A_TERMINAL = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"
"""Whatever the tests themselves were started by."""
HUNG_UP = """
interrupts = 0
for _ in range(2):
    try:
        os.kill(os.getpid(), signal.SIGHUP)
    except KeyboardInterrupt:
        interrupts += 1
sys.exit(interrupts)
"""


def test_a_terminal_that_is_closed_interrupts_once() -> None:
    command = [sys.executable, "-c", ON_A_TERMINAL + OUTLIVES + HUNG_UP]
    assert subprocess.run(command, check=False).returncode == 1


def test_under_nohup_it_does_not() -> None:
    command = ["nohup", sys.executable, "-c", OUTLIVES + HUNG_UP]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
