"""Commands in the documents: read from fenced blocks, and checked without running what takes long."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from bench.cli import compose, overrides
from bench.groups import CONF
from results.settings import Config
from tests.documents.markdown import ROOT, blocks, documents

SHELL = ("bash", "console", "sh")
PLACES = ("TODAY", "MONDAY", "TUESDAY", "CELL", "RUN_ID", "HOST")
"""Words in capitals that a reader replaces."""


OF_A_GUIDE = "workload=autoencoder"
"""A workload that a guide creates; test_tutorials runs it."""


@dataclass(frozen=True)
class Command:
    """One command of a document."""

    document: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {self.text}"

    @property
    def words(self) -> list[str]:
        words = shlex.split(self.text, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        return ["python", *words[1:]] if words and words[0] in (".venv/bin/python", "python3") else words


def commands() -> list[Command]:
    """Every command of every document, each text once."""
    all_commands = [command for path in documents() for command in commands_of(path)]
    return list({command.text: command for command in all_commands}.values())


def commands_of(path: Path) -> Iterator[Command]:
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.kind != "code" or block.language not in SHELL:
            continue
        lines = block.text.replace("\\\n", " ").split("\n")
        prompted = any(line.startswith("$ ") for line in lines)
        for line in lines:
            if prompted and not line.startswith("$ "):
                continue  # output
            text = line.removeprefix("$ ").strip()
            if text and not text.startswith("#"):
                yield Command(str(path.relative_to(ROOT)), block.line, text)


class Parsed(Exception):
    """A command's arguments are valid; it has not begun."""


def check(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises, or fails the test, if the command is not valid."""
    match command.words:
        case ["python", "-m", "bench", *arguments] if OF_A_GUIDE in arguments:
            pass
        case ["python", "-m", "bench", *arguments]:
            check_bench(arguments)
        case ["torchrun" | "mpirun" | "salloc", *words] if "bench" in words:
            check_bench(words[words.index("bench") + 1 :])
        case ["sbatch", script, *arguments]:
            assert (ROOT / script).exists()
            check_bench(arguments)
        case ["python", "-m", "pytest", *arguments]:
            paths = [word for word in arguments if word.startswith("tests/")]
            assert [path for path in paths if not (ROOT / path).exists()] == []
        case ["python", "-m", module, *arguments]:
            check_arguments(module, arguments, monkeypatch)
        case ["python", script, *_] | ["bash", script, *_] if "/" in script:
            assert (ROOT / script).exists()
        case ["pip", "install", wanted]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert wanted in [f"ddp-zero-bench[{extra}]" for extra in extras]
        case ["make", *words]:
            targets = [word for word in words if "=" not in word and word != "&"]
            subprocess.run(["make", "-n", *targets], cwd=ROOT, check=True, capture_output=True)
        case [script, *_] if script.startswith("scripts/"):
            assert os.access(ROOT / script, os.X_OK)
        case (
            ["source", ".venv/bin/activate"]
            | ["export", *_]
            | ["pre-commit", "install"]
            | ["git", "clone", _]
            | ["cd", _]
        ):
            pass
        case _:
            pytest.fail(f"no check for this command: {command}")


def check_bench(arguments: list[str]) -> None:
    """Composes the first and the last configuration of a sweep."""
    arguments = overrides.name_module(arguments)
    overrides.check_overrides(arguments)
    overrides.check_mode(arguments)
    words = [word for word in arguments if not word.startswith("-")]
    for end in (0, -1):
        composed(chosen(words, end))


def chosen(words: list[str], end: int) -> list[str]:
    """Overrides with one value of each list: the first or the last."""
    parsed = OverridesParser.create().parse_overrides(words)
    return [
        f"{one.get_key_element()}={list(one.sweep_string_iterator())[end]}" if one.is_sweep_override() else word
        for word, one in zip(words, parsed, strict=True)
    ]


def composed(words: list[str]) -> Config:
    compose.register(makes_folder=False)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return compose.from_hydra(hydra.compose("config", words))


def check_arguments(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a command until its arguments are parsed."""
    parse = argparse.ArgumentParser.parse_args

    def parsed(parser: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        parse(parser, args, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(Parsed):
        runpy.run_module(module, run_name="__main__")
