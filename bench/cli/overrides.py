"""Overrides on the command line: which are valid, and the error for the others."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import OverrideParseException

from bench.checks import ConfigError, check_value
from bench.cli.help import GROUPS, group_options
from bench.groups import default_option, options
from results.declare import each_setting
from results.host_settings import Cluster
from results.settings import Config
from results.shown import shown

BY_NAME = {"module": "path", "hf": "model", "timm": "model", "torchvision": "model"}
"""Workloads that are written ``workload=NAME:VALUE``, and the option that takes the value."""


def factory_name(path: str | None) -> str:
    """The name of a user's model (workload=module) in cells and reports. Raises ConfigError."""
    module, _, attribute = (path or "").partition(":")
    if not all(name.isidentifier() for name in (*module.split("."), *attribute.split("."))):
        raise ConfigError(
            f"workload.path={path or 'null'} is not valid; valid: module:attribute, as in my_models.net:Net"
        )
    return attribute.replace(".", "_")


def overrides_of(arguments: list[str]) -> list[str]:
    """The overrides among command-line arguments, without flags and their values."""
    return list(get_args_parser().parse_args(arguments).overrides)


def model_name(workload: str, model: str | None) -> str:
    """The name of a model of a library, by which cells and reports know it: ``hf_llama``; of a file, its folder's."""
    path = PurePath(str(model or ""))
    own = path.parent.name or path.stem if path.suffix == ".json" else path.name
    return "_".join(filter(None, [workload, re.sub(r"[^A-Za-z0-9.]+", "_", own).strip("_")]))


def name_module(arguments: list[str]) -> list[str]:
    """``workload=module:path.to:factory`` as ``workload=module workload.path=path.to:factory``, which Hydra knows.

    Likewise ``workload=hf:llama`` and the other workloads of ``BY_NAME``, ``cluster.options={...}``, and ``~tracking``,
    which turns tracking off, as ``tracking=none``.

    Raises ConfigError where what follows ``module:`` is malformed, or it is one of several choices.
    """
    rewritten = []
    for argument in arguments:
        group, _, value = argument.partition("=")
        if group == "~tracking":
            rewritten.append("tracking=none")
            continue
        if group == "cluster.options":
            rewritten.append(f"++{argument}")  # Hydra adds entries to a dict only so
            continue
        choices = value.split(",")
        named = [name for name in BY_NAME if any(choice.strip().startswith(f"{name}:") for choice in choices)]
        if group != "workload" or not named:
            rewritten.append(argument)
            continue
        workload, option = named[0], BY_NAME[named[0]]
        model = value.removeprefix(f"{workload}:")
        if len(choices) > 1:
            valid = (
                "one workload=module:path.to:factory, or several models of your own as workload=module "
                "workload.path=path.to:factory,path.to:another"
                if workload == "module"
                else f"workload={workload} workload.{option}=NAME,ANOTHER"
            )
            raise ConfigError(f"{argument} cannot be swept; valid: {valid}")
        if workload == "module":
            factory_name(model)
        elif not model:
            raise ConfigError(f"{argument} names no model; valid: workload={workload}:NAME")
        rewritten += [f"workload={workload}", f"workload.{option}={model}"]
    return rewritten


def check_overrides(arguments: list[str]) -> None:
    """Rejects misspelt settings and invalid values. Raises ConfigError with one line that lists the valid values."""
    texts = overrides_of(arguments)
    try:
        overrides = OverridesParser.create().parse_overrides(texts)
    except OverrideParseException as error:
        raise ConfigError(unreadable(str(error.override))) from error
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(f"an override cannot be read: {error}") from error
    settings = {path: spec for path, spec, _ in each_setting(Config())}
    own_configs = any(text.startswith("hydra.searchpath") for text in texts)
    for override in overrides:
        key = override.key_or_group
        if override.is_delete():
            _check_removal(key, override.input_line or "", settings)
        if override.is_add() or override.is_force_add() or override.is_delete() or key.startswith("hydra"):
            continue
        if key in GROUPS:
            if not own_configs:
                _check_group(key, values_of(override))
        elif key in settings:
            for value in values_of(override):
                check_value(key, settings[key], value)
        elif not _is_option(key, overrides):
            _reject_key(key, [*settings, *GROUPS])


def cluster_of(arguments: list[str]) -> Cluster:
    """The settings of ``cluster.*`` on a command line that was checked, for commands that compose no others."""
    cluster = Cluster()
    for override in OverridesParser.create().parse_overrides(overrides_of(arguments)):
        name = override.key_or_group.removeprefix("cluster.")
        if override.key_or_group == "cluster":
            cluster.kind = str(override.value())
        elif name != override.key_or_group and not override.is_sweep_override():
            setattr(cluster, name, override.value())
    return cluster


def unreadable(text: str) -> str:
    """What is wrong with an override that Hydra cannot read, and how to write it."""
    name, equals, value = text.partition("=")
    problem = f"{shown(text)} cannot be read as an override; "
    if equals and value and not value.startswith(("'", '"', "[", "{")):
        quoted = '"' + value.replace('"', '\\"') + '"'
        return f"{problem}quote a value with such characters, twice: {shlex.quote(f'{name}={quoted}')}"
    return f"{problem}write setting=value"


def check_mode(arguments: list[str]) -> None:
    """Rejects what Hydra would not run, or would run without a part of it. Raises ConfigError."""
    flags = get_args_parser().parse_args(arguments)
    modes = [name for name in ("run", "multirun", "cfg", "info", "shell_completion") if getattr(flags, name)]
    if len(modes) > 1:
        raise ConfigError(f"only one is valid of {', '.join('--' + name.replace('_', '-') for name in modes)}")
    if flags.resolve and not (flags.cfg or flags.help):
        raise ConfigError("--resolve is valid only with --cfg or --help")
    overrides = OverridesParser.create().parse_overrides(flags.overrides)
    names = {override.key_or_group for override in overrides}
    for override in overrides:
        if not override.is_sweep_override():
            continue
        if override.key_or_group == "experiment":
            raise ConfigError(f"{override.input_line} cannot be swept: each is a sweep of its own; give one of them")
        if not values_of(override):
            raise ConfigError(f"{override.input_line} has no values; valid: at least one")
        if not (flags.multirun or names & {"hydra.mode", "experiment"}):
            raise ConfigError(f"{override.input_line} is a sweep; add -m")


def values_of(override: Override) -> list[Any]:
    """The value of an override, or each value of a sweep."""
    if not override.is_sweep_override():
        return [override.value()]
    if isinstance(override.value(), Glob):
        raise ConfigError(f"{override.input_line} cannot be expanded; name the values")
    return list(override.sweep_iterator(transformer=lambda value: value))


def _check_removal(key: str, text: str, settings: Mapping[str, Any]) -> None:
    """Rejects the removal of what every sweep has: without it, the default would hold in silence."""
    if key in settings or key in ("engine", "workload", "measure"):
        valid = f"choose {key}=..." if key in GROUPS else f"{key}=VALUE sets it"
        raise ConfigError(f"{text} cannot be removed; leave it out for the default, or {valid}")


def _check_group(group: str, values: list[Any]) -> None:
    for value in values:
        if str(value) not in options(group):
            raise ConfigError(f"{group}={value} is unknown; valid: {', '.join(options(group))}")


def _is_option(key: str, overrides: list[Override]) -> bool:
    """Whether ``key`` is an option of a chosen engine or workload, or may become one (experiment, own configs)."""
    group, _, name = key.partition(".")
    if group not in ("engine", "workload") or not name:
        return False
    given = {override.key_or_group: values_of(override) for override in overrides}
    if "experiment" in given or any(other.startswith("hydra.searchpath") for other in given):
        return True
    names = [str(value) for value in given.get(group, [default_option(group)])]
    _check_group(group, names)
    allowed = sorted(set.intersection(*(set(group_options(group, choice)) for choice in names)))
    if name.split(".")[0] not in allowed:
        raise ConfigError(f"{key} is not an option of {group}={','.join(names)}; valid: {', '.join(allowed) or 'none'}")
    return True


def _reject_key(key: str, settings: list[str]) -> None:
    near = difflib.get_close_matches(key, settings, n=1)
    hint = f"did you mean {near[0]}?" if near else "no setting has a name like it"
    raise ConfigError(f"{key} is not a setting; {hint} (python -m bench --help explains each)")
