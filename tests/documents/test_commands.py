"""Every command in the documents is valid: settings compose, arguments parse, targets and files exist."""

from __future__ import annotations

import pytest

from bench.checks import ConfigError
from tests.documents.commands import Command, check, commands


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("command", commands(), ids=str)
def test_the_command_is_valid(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    check(command, monkeypatch)


def test_the_documents_have_commands_of_every_kind() -> None:
    texts = [command.text for command in commands()]
    for part in ("-m bench -m", "-m analysis compare", "-m bench.regress", "make bench", "make test"):
        assert [text for text in texts if part in text], part


@pytest.mark.parametrize("text", ["python -m bench stgae=1", "python -m bench -m stage=0,7"])
def test_a_misspelt_setting_and_a_value_out_of_range_are_noticed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError):
        check(Command("made.md", 1, text), monkeypatch)


@pytest.mark.parametrize("text", ["python -m analysis compare --sane 5 here", "python -m claims --lst"])
def test_a_misspelt_option_is_noticed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        check(Command("made.md", 1, text), monkeypatch)


def test_a_command_without_a_check_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pytest.fail.Exception):
        check(Command("made.md", 1, "rm -rf everything"), monkeypatch)
