"""A newcomer follows the tutorials literally, in an empty folder: a model of one's own, then questions about it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import command_line
from tests.documents.commands import Command, commands_of
from tests.documents.markdown import ROOT, blocks

TUTORIAL = ROOT / "docs" / "tutorials" / "your_own_model.md"
SHORT = ("repeats=2", "steps=2", "warmup=1", "measure.ceiling=false", "tracking=none")
"""What a test adds, since what a configuration costs is not its question."""
SWEEP = "results/runs/TODAY"


def run(arguments: list[str], folder: Path, *, drawn: bool = False) -> subprocess.CompletedProcess[str]:
    dash_m, *words = arguments
    assert dash_m == "-m", arguments
    return command_line.run(*words, cwd=folder, drawn=drawn)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder in which the tutorial's file was created and its sweep was run."""
    here = tmp_path_factory.mktemp("newcomer")
    code = next(block.text for block in blocks(TUTORIAL.read_text()) if block.language == "python")
    (here / "my_models").mkdir()
    (here / "my_models" / "net.py").write_text(code)
    sweep = next(command for command in commands_of(TUTORIAL) if " -m bench -m " in command.text)
    done = run([*sweep.words[1:], *SHORT, f"hydra.sweep.dir={SWEEP}"], here, drawn=True)
    assert done.returncode == 0, done.stdout + done.stderr
    yield here


def test_the_sweep_has_a_record_per_configuration_and_a_report(folder: Path) -> None:
    assert len(list((folder / SWEEP / "records").glob("*.json"))) == 4
    assert {"report.md", "report.html", "summary.csv"} <= {path.name for path in (folder / SWEEP).iterdir()}


def questions() -> list[Command]:
    """Commands of the tutorials that ask a sweep something; what they name is in any sweep."""
    pages = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
    entries = [
        command
        for path in pages
        for command in commands_of(path)
        if re.search(r"analysis (advise|report)", command.text)
    ]
    assert entries
    return entries


@pytest.mark.parametrize("command", questions(), ids=str)
def test_a_question_is_answered(command: Command, folder: Path) -> None:
    done = run(command.words[1:], folder)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert done.stdout.strip()
    assert done.returncode == 0 or "advise" in command.text


def test_two_stages_are_compared(folder: Path) -> None:
    done = run(["-m", "analysis", "compare", SWEEP, "--between", "stage=0,3"], folder)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert "Net" in done.stdout or "stage" in done.stdout


def test_a_record_is_reproduced(folder: Path) -> None:
    record = sorted((folder / SWEEP / "records").glob("*.json"))[0]
    named = "workload=module:my_models.net:Net"  # a record's own code runs only where the command names it
    done = run(["-m", "bench", f"reproduce={record.relative_to(folder)}", named, "repeats=1", "tracking=none"], folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workload_of_the_guide_runs_from_a_folder_of_its_own(tmp_path: Path) -> None:
    guide = ROOT / "docs" / "how-to" / "add_a_workload.md"
    code = {block.language: block.text for block in blocks(guide.read_text()) if block.language in ("python", "yaml")}
    (tmp_path / "my_models").mkdir()
    (tmp_path / "my_models" / "autoencoder.py").write_text(code["python"])
    (tmp_path / "mine" / "workload").mkdir(parents=True)
    (tmp_path / "mine" / "workload" / "autoencoder.yaml").write_text(code["yaml"])
    command = next(command for command in commands_of(guide) if "autoencoder" in command.text)
    place = f"hydra.searchpath=[file://{tmp_path / 'mine'}]"
    done = run([*command.words[1:], place, *SHORT, "batch_size=4", "hydra.sweep.dir=out"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["-m", "bench.engines"], ["-m", "claims", "--list"], ["-m", "bench", "--help"]])
def test_what_takes_no_sweep_answers_at_once(arguments: list[str], tmp_path: Path) -> None:
    done = run(arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 10
