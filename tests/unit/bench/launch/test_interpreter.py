"""A Python that the suite starts runs the suite's own modules, in any folder."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

from bench import OWN
from bench.launch import interpreter

NO_PACKAGES = {"conf", "hydra_plugins"}
"""Files, and a namespace that others add to."""

MINE = """\
import importlib.util, sys
for name in sys.argv[1:]:
    print(importlib.util.find_spec(name).origin)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with packages of the suite's names, none of which can be imported, and a module of a person's own."""
    for name in (*OWN, "conf"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not this one')")
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_packages_of_the_suite_are_its_own_in_a_folder_with_others_of_their_names(folder: Path) -> None:
    done = subprocess.run(
        [*interpreter.runs("mine"), *OWN], cwd=folder, capture_output=True, text=True, check=False, env={}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(interpreter.ROOT / name / "__init__.py") for name in OWN]


def test_all_packages_of_the_distribution_are_protected() -> None:
    document = tomllib.loads((interpreter.ROOT / "pyproject.toml").read_text())
    packages = set(document["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert set(OWN) == packages - NO_PACKAGES
