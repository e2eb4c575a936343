"""What a command writes reaches any terminal, and controls none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from terminal.output import without_controls

ROOT = Path(__file__).resolve().parents[3]
WRITERS = ("bench", "analysis", "claims", "results", "terminal")


SAYS = """
from terminal.output import prepare_output
prepare_output()
import sys
from terminal.tables import bare, console
hostile = "a\\x1b[2Jb\\x00c\\x9bd\\u202ee"
print(hostile)
print(hostile, file=sys.stderr)
console().print(hostile, markup=False)
table = bare(["a"])
table.add_row(hostile)
console(stderr=True).print(table)
"""


def test_no_control_character_of_what_is_written_reaches_a_terminal() -> None:
    ended = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, cwd=ROOT, check=True)
    for stream in (ended.stdout, ended.stderr):
        assert stream.decode().count("a\ufffd[2Jb\ufffdc\ufffdd\ufffde") == 2
        assert without_controls(stream.decode()) == stream.decode()


def test_styles_of_a_table_still_reach_a_terminal() -> None:
    code = "from terminal.output import prepare_output; prepare_output(); from terminal.tables import console; "
    code += "console().print('[bold]a[/bold]')"
    variables = os.environ | {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, env=variables, check=True)
    assert ended.stdout == b"\x1b[1ma\x1b[0m\n"


def test_consoles_are_made_in_one_place() -> None:
    makers = [path for place in WRITERS for path in (ROOT / place).rglob("*.py") if " Console(" in path.read_text()]
    assert makers == []


def test_what_is_written_keeps_its_order_where_tables_and_lines_alternate() -> None:
    code = "from terminal.output import prepare_output; prepare_output(); from terminal.tables import console\n"
    code += "for n in range(3):\n print('line', n)\n console().print(f'table {n}')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, text=True, check=True)
    assert ended.stdout.split("\n")[:4] == ["line 0", "table 0", "line 1", "table 1"]


def test_a_line_is_written_at_once_where_python_is_told_not_to_buffer() -> None:
    code = "import os; from terminal.output import prepare_output; prepare_output(); print('out'); os._exit(0)"
    variables = os.environ | {"PYTHONUNBUFFERED": "1"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, env=variables, check=True)
    assert ended.stdout == b"out\n"
