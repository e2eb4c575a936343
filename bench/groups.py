"""Config groups: the files under conf/ that a group's name chooses from."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

CONF = Path(__file__).resolve().parent.parent / "conf"


def options(group: str, conf: Path = CONF) -> list[str]:
    """The names in a config group, one file each; ``folder/name`` for those in a folder of it."""
    place = conf / group
    return sorted(path.relative_to(place).with_suffix("").as_posix() for path in place.rglob("*.yaml"))


@functools.cache
def group_files(group: str, conf: Path = CONF) -> dict[str, dict[str, Any]]:
    """The settings in each file of a config group, by the file's name. Read only: the result is cached."""
    files = {}
    for name in options(group, conf):
        document = yaml.safe_load((conf / group / f"{name}.yaml").read_text(encoding="utf-8"))
        files[name] = document.get(group, document)
    return files


def default_option(group: str) -> str:
    """The choice of a config group where the command line has none."""
    defaults = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return next(str(entry[group]) for entry in defaults if isinstance(entry, dict) and group in entry)
