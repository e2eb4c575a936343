"""Reference pages say what the code says."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys

from analysis.__main__ import parser
from analysis.table.frame import COLUMNS
from results.declare import each_setting
from results.settings import Config
from results.verdicts import VERDICTS
from tests.documents.markdown import ROOT

REFERENCE = ROOT / "docs" / "reference"


def test_generated_pages_are_current() -> None:
    script = str(ROOT / "scripts" / "reference_pages.py")
    run = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, cwd=ROOT)
    assert (run.returncode, run.stdout) == (0, ""), f"python scripts/reference_pages.py\n{run.stdout}{run.stderr}"


def test_every_setting_and_every_warning_has_a_row() -> None:
    settings = (REFERENCE / "settings.md").read_text(encoding="utf-8")
    warnings = (REFERENCE / "warnings.md").read_text(encoding="utf-8")
    names = [path for path, _, value in each_setting(Config()) if not isinstance(value, dict)]
    assert [name for name in names if f"| `{name}` |" not in settings] == []
    assert [name for name in VERDICTS if f"| `{name}` |" not in warnings] == []


def test_the_columns_of_the_metrics_page_are_columns_of_the_summary() -> None:
    text = (REFERENCE / "metrics.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| [^|]+ \| `([A-Za-z_]+)` \| [^|]+ \| [^|]+ \|$", text, re.M)
    assert len(named) > 20
    assert [name for name in named if name not in COLUMNS and not {"PART"} & set(name.split("_"))] == []


def test_the_commands_page_has_every_command_of_analysis_and_every_target_of_make() -> None:
    text = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    commands = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)).choices
    targets = re.findall(r"^# make (\w+) ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert [name for name in commands if f"`python -m analysis {name} " not in text] == []
    assert len(targets) > 5
    assert [name for name in targets if f"| `make {name}` |" not in text] == []


def test_warnings_named_in_the_guides_exist() -> None:
    text = (ROOT / "docs" / "how-to" / "troubleshooting.md").read_text(encoding="utf-8")
    table = text.partition("## Warnings")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `([a-z_]+)` \|", table, re.M)
    assert len(named) > 5
    assert set(named) <= set(VERDICTS)
