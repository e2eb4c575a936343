"""The command line: how Hydra learns the knobs, how ``--help`` teaches them, and how a mistake is explained.

Hydra composes the configuration. Before it does, ``check_overrides`` reads the same overrides and refuses
what is misspelt or out of range with one line; Hydra's own messages are for composing, not for this.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shlex
import sys
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, SCMode
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from analysis.mlflow_store import default_uri
from bench import engines, launch
from bench.checks import ConfigError, check, check_engine_options, check_value, valid_values
from bench.groups import CONF, default_option, group_files, options
from bench.one_process import NOT_RUN
from bench.record.shown import shown
from bench.store import dated, new_dated
from bench.withheld import restored
from results.declare import each_setting, info
from results.settings import Config

GROUPS = ("engine", "workload", "network", "measure", "tracking", "experiment")
RUNS = Path("results/runs")
OWN_MODULE = "module:"
"""Begins the name of a workload that is a person's own model."""

FULL_ERROR = "BENCH_FULL_ERROR"
"""Set where the person asked for tracebacks; HYDRA_FULL_ERROR itself is always set (see ``bench.__main__``)."""

USAGE = """\
Benchmarks DDP and ZeRO training: one cell, or (with -m) every combination of comma-separated values.

  python -m bench stage=2 gpus=4
  python -m bench -m stage=0,1,2,3 gpus=1,2,4,8
  python -m bench -m workload=resnet18 precision=fp32,amp_bf16 bucket_mb=1,25,100
  python -m bench experiment=smoke
  python -m bench workload=module:my_models.net:Net stage=3 gpus=2
  python -m bench reproduce=results/runs/DATE_TIME/records/CELL.json

Each sweep writes records, a summary, figures and a report to results/runs/DATE_TIME/
(hydra.sweep.dir=FOLDER moves it) and logs to MLflow. resume=true goes on where one was cut off.
HYDRA_FULL_ERROR=1 shows the whole traceback of an error.

Exit code: 0, 1 if a cell failed or lost parity (with reproduce=, if what was measured differs), 2 if what was asked for
cannot be run, 130 after Ctrl-C.
"""


def register(defaults: Mapping[str, Any] | None = None, *, makes_folder: bool = True) -> None:
    """Gives Hydra the schema of the configuration, the text of ``--help``, and the name of the sweep's folder.

    ``defaults`` are another code's, by dotted knob; those that are no knobs here are left out.
    """
    schema, here = OmegaConf.structured(Config), {path for path, _, _ in each_setting(Config())}
    for path, value in (defaults or {}).items():
        if path in here:
            OmegaConf.update(schema, path, value)
    store = ConfigStore.instance()
    store.store(name="schema", node=schema, provider="bench")
    store.store(group="hydra/help", name="bench", node=_help_node(), provider="bench")
    one_folder = cache(partial(run_folder, makes_folder=makes_folder))  # the resolver's own cache is one a cell
    OmegaConf.register_new_resolver("run_folder", one_folder, replace=True)
    OmegaConf.register_new_resolver("default_store", default_uri, replace=True)
    OmegaConf.register_new_resolver("factory_name", factory_name, replace=True)


def from_hydra(composed: DictConfig, conf: Path = CONF) -> Config:
    """What was composed of ``conf`` as a checked Config. Raises ConfigError."""
    values = OmegaConf.to_container(composed, resolve=True, structured_config_mode=SCMode.DICT)
    assert isinstance(values, dict)
    values.pop("hydra", None)
    values = restored(values)
    schema: Any = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(values))
    config: Config = OmegaConf.to_object(schema)  # type: ignore[assignment]
    check(config)
    check_engine_options(config, conf)
    return config


def shows_only(arguments: list[str]) -> bool:
    """Whether the command shows a configuration or help, and runs nothing."""
    flags = get_args_parser().parse_args(arguments)
    return bool(flags.cfg or flags.info or flags.help or flags.hydra_help or flags.shell_completion)


def run_folder(resume: bool, *, makes_folder: bool = True) -> str:
    """Name of the sweep's folder under results/runs: the time now, or, to resume, the one that was written to last.

    A new folder is made at once, so that no other sweep takes the name.
    """
    found = [(path.stat().st_mtime_ns, path.parent.name) for path in RUNS.glob("*/records") if resume]
    if found:
        return max(found)[1]
    return new_dated(RUNS).name if makes_folder else dated()


def factory_name(path: str | None) -> str:
    """The name of a person's own model (workload=module), by which cells and reports know it. Raises ConfigError."""
    module, _, attribute = (path or "").partition(":")
    if not all(name.isidentifier() for name in (*module.split("."), *attribute.split("."))):
        raise ConfigError(
            f"workload.path={path or 'null'} is not valid; valid: module:attribute, as in my_models.net:Net"
        )
    return attribute.replace(".", "_")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the process with one line for what a person can mend; HYDRA_FULL_ERROR=1 shows the traceback instead."""
    try:
        yield
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except (ConfigError, HydraException, OmegaConfBaseException, YAMLError, OSError) as error:
        if os.environ.get(FULL_ERROR) == "1":
            raise
        print(f"bench: {explain(error)}", file=sys.stderr)
        raise SystemExit(NOT_RUN) from None


def warming(arguments: list[str]) -> contextlib.AbstractContextManager[None]:
    """Starts the fork server for the engines that ``arguments`` name, so that it warms up while Hydra composes."""
    if any(argument.startswith("-") and argument not in ("-m", "--multirun") for argument in arguments):
        return contextlib.nullcontext()  # --help and its like run nothing
    named = next((argument.removeprefix("engine=") for argument in arguments if argument.startswith("engine=")), None)
    names, files = (named or default_option("engine")).split(","), group_files("engine")
    packages = [files[name]["package"] for name in names if name in files]
    return launch.warming(engines.preload(*packages))


def overrides_of(arguments: list[str]) -> list[str]:
    """The overrides among command-line arguments, without flags and their values."""
    return list(get_args_parser().parse_args(arguments).overrides)


def name_module(arguments: list[str]) -> list[str]:
    """``workload=module:path.to:factory`` as ``workload=module workload.path=path.to:factory``, which Hydra knows.

    Likewise ``~tracking``, which turns tracking off, as ``tracking=none``.

    Raises ConfigError where what follows ``module:`` is malformed, or it is one of several choices.
    """
    rewritten = []
    for argument in arguments:
        group, _, value = argument.partition("=")
        if group == "~tracking":
            rewritten.append("tracking=none")
            continue
        choices = value.split(",")
        if group != "workload" or not any(choice.strip().startswith(OWN_MODULE) for choice in choices):
            rewritten.append(argument)
            continue
        path = value.removeprefix(OWN_MODULE)
        if len(choices) > 1:
            raise ConfigError(
                f"{argument} cannot be swept; valid: one workload=module:path.to:factory, or several models of your "
                "own as workload=module workload.path=path.to:factory,path.to:another"
            )
        factory_name(path)
        rewritten += ["workload=module", f"workload.path={path}"]
    return rewritten


def check_overrides(arguments: list[str]) -> None:
    """Refuses misspelt knobs and invalid values. Raises ConfigError with one line that says what is valid."""
    texts = overrides_of(arguments)
    try:
        overrides = OverridesParser.create().parse_overrides(texts)
    except OverrideParseException as error:
        raise ConfigError(unreadable(str(error.override))) from error
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(f"an override cannot be read: {error}") from error
    known = {path: spec for path, spec, _ in each_setting(Config())}
    own_configs = any(text.startswith("hydra.searchpath") for text in texts)
    for override in overrides:
        key = override.key_or_group
        if override.is_delete():
            _check_removal(key, override.input_line or "", known)
        if override.is_add() or override.is_force_add() or override.is_delete() or key.startswith("hydra"):
            continue
        if key in GROUPS:
            if not own_configs:
                _check_group(key, values_of(override))
        elif key in known:
            for value in values_of(override):
                check_value(key, known[key], value)
        elif not _is_option(key, overrides):
            _refuse_key(key, [*known, *GROUPS])


def unreadable(text: str) -> str:
    """What is wrong with an override that Hydra cannot read, and how to write it."""
    name, equals, value = text.partition("=")
    said = f"{shown(text)} cannot be read as an override; "
    if equals and value and not value.startswith(("'", '"', "[", "{")):
        quoted = '"' + value.replace('"', '\\"') + '"'
        return f"{said}quote a value with such characters, twice: {shlex.quote(f'{name}={quoted}')}"
    return f"{said}write setting=value"


def check_mode(arguments: list[str]) -> None:
    """Refuses what Hydra would not run, or would run without a part of it. Raises ConfigError."""
    flags = get_args_parser().parse_args(arguments)
    modes = [name for name in ("run", "multirun", "cfg", "info", "shell_completion") if getattr(flags, name)]
    if len(modes) > 1:
        raise ConfigError(f"only one is valid of {', '.join('--' + name.replace('_', '-') for name in modes)}")
    if flags.resolve and not (flags.cfg or flags.help):
        raise ConfigError("--resolve is valid only beside --cfg or --help")
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
    """Refuses to remove what every sweep has: without it, the default would hold in silence."""
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


def group_options(group: str, choice: str) -> list[str]:
    """The options that ``group=choice`` has, from its file."""
    return sorted(set(group_files(group)[choice]) - {"name", "factory", "package"})


def _refuse_key(key: str, known: list[str]) -> None:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"valid: {', '.join(known)}"
    raise ConfigError(f"{key} is not a knob; {hint} (python -m bench --help explains each)")


def _help_node() -> dict[str, str]:
    return {"app_name": "bench", "header": USAGE, "footer": "", "template": f"{USAGE}\n{knob_table()}"}


def knob_table() -> str:
    """Every knob with its default, its valid values and its meaning, as text of 100 columns."""
    lines = ["Config groups:"]
    lines += [f"  {group + '=':24}{', '.join(options(group))}" for group in GROUPS]
    lines.append("\nKnobs (null: the default of the engine or workload, which the record then holds):")
    for path, spec, value in each_setting(Config()):
        if isinstance(value, dict):
            continue
        default = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        lines.append(f"  {path + '=' + default:34}[{valid_values(spec)}]")
        lines += textwrap.wrap(info(spec).help, 92, initial_indent=" " * 6, subsequent_indent=" " * 6)
    for group in ("engine", "workload"):
        lines.append(f"\nOptions of each {group} ({group}.NAME=VALUE):")
        for choice in options(group):
            lines.append(f"  {choice:18}{', '.join(group_options(group, choice)) or '-'}")
    return "\n".join(lines).replace("$", "$$") + "\n"


def explain(error: Exception) -> str:
    """One line for a person: the innermost message, without a traceback."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception) and not isinstance(error, ConfigError):
        error = error.__cause__
    if isinstance(error, MarkedYAMLError) and (mark := error.problem_mark):
        return (
            f"{mark.name}, line {mark.line + 1}, is not valid YAML: {error.problem or error.context}; "
            "indent with spaces, as deep as the lines beside it"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__
