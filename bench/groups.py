"""Config groups: the files under conf/ that a group's name chooses from."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

CONF = Path(__file__).resolve().parent.parent / "conf"


def options(group: str) -> list[str]:
    """The names in a config group, one file each."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@functools.cache
def group_files(group: str, conf: Path = CONF) -> dict[str, dict[str, Any]]:
    """The settings in each file of a config group, by the file's name. Read only: the result is cached."""
    files = {}
    for path in sorted((conf / group).glob("*.yaml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        files[path.stem] = document.get(group, document)
    return files


def default_option(group: str) -> str:
    """The choice of a config group where the command line has none."""
    defaults = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return next(str(entry[group]) for entry in defaults if isinstance(entry, dict) and group in entry)
