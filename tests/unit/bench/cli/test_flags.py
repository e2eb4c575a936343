"""Settings that a person writes as flags: one line with the right spelling."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.checks import ConfigError
from bench.cli import help
from bench.cli.flags import check_flags
from bench.measure.machine.source import ROOT
from results.declare import each_setting
from results.settings import Config


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--stage", "2"], "--stage is not a flag; settings are written without dashes: stage=2"),
        (["--stage=0,3"], "--stage is not a flag; settings are written without dashes: stage=0,3"),
        (["-stage", "2"], "-stage is not a flag; settings are written without dashes: stage=2"),
        (["--batch-size", "8"], "--batch-size is not a flag; settings are written without dashes: batch_size=8"),
        (["--bukcet-mb", "8"], "--bukcet-mb is not a flag; settings are written without dashes: bucket_mb=8"),
        (
            ["--experiment", "smoke"],
            "--experiment is not a flag; settings are written without dashes: experiment=smoke",
        ),
        (["--resume"], "--resume is not a flag; settings are written without dashes: resume=VALUE"),
        (["--dry-run", "stage=2"], "--dry-run is not a flag; settings are written without dashes: dry_run=VALUE"),
        (["--multrun"], "--multrun is not a flag; did you mean --multirun?"),
        (["-x"], "-x is not a flag; valid: settings as setting=value"),
    ],
)
def test_a_setting_that_is_written_as_a_flag_is_answered_with_its_spelling(arguments: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as rejection:
        check_flags(arguments)
    assert str(rejection.value).startswith(line)
    assert "\n" not in str(rejection.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "stage=0,1"],
        ["--cfg", "job", "--resolve"],
        ["--help"],
        ["-sc", "install=bash"],
        ["--config-dir", "x"],
        [],
    ],
)
def test_flags_of_hydra_pass(arguments: list[str]) -> None:
    check_flags(arguments)


def test_help_puts_each_setting_under_one_topic() -> None:
    text = help.settings_table()
    for path, _, value in each_setting(Config()):
        assert help.topic_of(path) in help.TOPICS
        assert isinstance(value, dict) or text.count(f"\n  {path}=") == 1
    positions = [text.index(f"\n{topic}:") for topic in help.TOPICS]
    assert positions == sorted(positions)


def test_version_names_the_suite_the_code_and_torch() -> None:
    command = [sys.executable, "-m", "bench", "--version"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    (line,) = ended.stdout.splitlines()
    assert line.startswith("ddp-zero-bench ")
    assert all(word in line for word in ("torch ", "Python "))
