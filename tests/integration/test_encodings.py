"""What every command writes reaches a terminal of any encoding."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.measure.machine.source import ROOT
from tests import command_line
from tests.fakes import troubled_sweep, write_all

COMMANDS = (
    ("bench", "--help"),
    ("bench.engines", "--reasons"),
    ("bench.tracking.ui", "--help"),
    ("bench.tracking", "import", "--help"),
    ("bench.regress", "--help"),
    ("bench.preflight", "--help"),
    ("bench.nightly.summary", "--help"),
    ("claims", "--list"),
    ("analysis", "report", "SWEEP"),
    ("analysis", "compare", "SWEEP", "SWEEP"),
    ("analysis", "advise", "SWEEP"),
    ("analysis", "history", "SWEEP"),
)


@pytest.mark.parametrize(
    ("command", "encoding"),
    [*((command, "ascii") for command in COMMANDS), (("analysis", "compare", "SWEEP", "SWEEP"), "latin-1")],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_command_writes_to_terminals_of_ascii_and_latin_1(
    command: tuple[str, ...], encoding: str, tmp_path: Path
) -> None:
    sweep = write_all(troubled_sweep(), tmp_path / "±")
    words = [str(sweep) if word == "SWEEP" else word for word in command]
    variables = {"PYTHONIOENCODING": encoding, "COLUMNS": "80"}
    ended = command_line.run(*words, cwd=ROOT, variables=variables, drawn=False)  # raises without a letter for a word
    assert "Traceback" not in ended.stderr and "Error" not in ended.stderr, ended.stderr
    assert ended.returncode in (0, 2), ended.stderr
