"""Flags on the command line: those that Hydra has, ``--version``, and settings that were written as flags."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from hydra._internal.utils import get_args_parser

from bench.checks import ConfigError
from bench.cli.help import GROUPS
from results.declare import each_setting
from results.settings import Config


def check_flags(arguments: Sequence[str]) -> None:
    """Raises ConfigError for a flag that does not exist; for a setting, with its right spelling."""
    flags = [spelling for action in get_args_parser()._actions for spelling in action.option_strings]
    settings = [path for path, _, _ in each_setting(Config())] + list(GROUPS)
    for flag, value in _flags_of(arguments):
        if flag in flags:
            continue
        name = flag.lstrip("-").replace("-", "_")
        near = difflib.get_close_matches(name, settings, n=1)
        if name in settings or near:
            setting = name if name in settings else near[0]
            value = value if value is not None and "=" not in value else "VALUE"
            raise ConfigError(f"{flag} is not a flag; settings are written without dashes: {setting}={value}")
        likely = difflib.get_close_matches(flag, flags, n=1)
        hint = f"did you mean {likely[0]}?" if likely else "valid: settings as setting=value"
        raise ConfigError(f"{flag} is not a flag; {hint} (python -m bench --help lists settings, --hydra-help flags)")


def _flags_of(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Each flag with its value: what follows ``=``, or the next argument unless that is a flag too."""
    for at, argument in enumerate(arguments):
        if argument.startswith("-") and argument != "-":
            flag, equals, value = argument.partition("=")
            following = arguments[at + 1] if at + 1 < len(arguments) else "-"
            yield flag, value if equals else (None if following.startswith("-") else following)
