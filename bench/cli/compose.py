"""The command line: how Hydra learns the settings, how ``--help`` teaches them, and how a mistake is explained.

Hydra composes the configuration. Before it does, ``check_overrides`` reads the same overrides and rejects
what is misspelt or out of range with one line; Hydra's own messages are for composing, not for this.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, SCMode

from bench import engines
from bench.checks import check, check_engine_options
from bench.cli.help import help_node
from bench.cli.main_sweep import world_sizes
from bench.cli.overrides import factory_name, model_name
from bench.cli.withheld import restored
from bench.groups import CONF, default_option, group_files
from bench.launch import local
from results.declare import each_setting
from results.mlflow_store import default_uri
from results.settings import Config
from results.store import dated, new_dated

RUNS = Path("results/runs")


def register(defaults: Mapping[str, Any] | None = None, *, makes_folder: bool = True) -> None:
    """Gives Hydra the schema of the configuration, the text of ``--help``, and the name of the sweep's folder.

    ``defaults`` are another code's, by dotted name; those that are no settings here are left out.
    """
    schema, here = OmegaConf.structured(Config), {path for path, _, _ in each_setting(Config())}
    for path, value in (defaults or {}).items():
        if path in here:
            OmegaConf.update(schema, path, value)
    store = ConfigStore.instance()
    store.store(name="schema", node=schema, provider="bench")
    store.store(group="hydra/help", name="bench", node=help_node(), provider="bench")
    one_folder = cache(partial(run_folder, makes_folder=makes_folder))  # the resolver's own cache is one a cell
    OmegaConf.register_new_resolver("run_folder", one_folder, replace=True)
    OmegaConf.register_new_resolver("default_store", default_uri, replace=True)
    OmegaConf.register_new_resolver("world_sizes", world_sizes, replace=True)
    OmegaConf.register_new_resolver("factory_name", factory_name, replace=True)
    OmegaConf.register_new_resolver("model_name", model_name, replace=True)


def from_hydra(composed: DictConfig, conf: Path = CONF) -> Config:
    """The composed ``conf`` as a checked Config. Raises ConfigError."""
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
    folders = [(path.stat().st_mtime_ns, path.parent.name) for path in RUNS.glob("*/records") if resume]
    if folders:
        return max(folders)[1]
    return new_dated(RUNS).name if makes_folder else dated()


def warming(arguments: list[str]) -> contextlib.AbstractContextManager[None]:
    """Starts the fork server for the engines that ``arguments`` name, so that it warms up while Hydra composes."""
    if any(argument.startswith("-") and argument not in ("-m", "--multirun") for argument in arguments):
        return contextlib.nullcontext()  # --help and its like run nothing
    if any(argument.startswith("cluster=") and argument != "cluster=local" for argument in arguments):
        return contextlib.nullcontext()  # ranks run elsewhere
    named = next((argument.removeprefix("engine=") for argument in arguments if argument.startswith("engine=")), None)
    names, files = (named or default_option("engine")).split(","), group_files("engine")
    packages = [files[name]["package"] for name in names if name in files]
    return local.warming(engines.preload(*packages))
