"""Validation of settings, wherever they run: types, bounds, and settings that need each other.

What depends on the machine is resolved later (``bench.plan.cell``); what depends on the engine, the engine checks.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from bench.groups import CONF, group_files, options
from results.declare import each_setting, is_valid, type_name, valid_values
from results.identity import as_written
from results.record import NO_ENGINE
from results.settings import Config, Straggler, with_role
from results.shown import cut, shown
from results.target import WINDOW


class ConfigError(ValueError):
    """A setting is invalid; the message is one line with its name and the valid values."""


MAX_PROCESSES = 4096
"""Ranks that are processes, each with a connection to every other."""
LARGEST = 2**40
"""Of whole numbers, so that what is computed from a few of them still fits 64 bits."""


def check(config: Config) -> None:
    """Raises ConfigError for a value that no machine and no engine could run."""
    for path, spec, value in each_setting(config):
        check_value(path, spec, value)
    for group in ("engine", "workload"):
        for key in ("name", "package" if group == "engine" else "factory"):
            if not getattr(config, group).get(key):
                raise ConfigError(f"{group}.{key} is not set; choose {group}= one of {', '.join(options(group))}")
    if config.compile and not config.warmup:
        raise ConfigError("compile=true needs warmup of at least 1: the first step of each launch compiles")
    if config.straggler.rank is not None and config.straggler.rank >= config.gpus:
        raise ConfigError(
            f"straggler.rank={config.straggler.rank} is not a rank of gpus={config.gpus}; "
            f"valid: 0 to {config.gpus - 1}, null"
        )
    if config.backend != "fake" and config.gpus > MAX_PROCESSES:
        raise ConfigError(
            f"gpus={config.gpus} is more than one machine can start; valid: at most {MAX_PROCESSES}, "
            "more with backend=fake, which runs rank 0 alone"
        )
    check_schedule(config)
    check_search(config)
    check_loader(config)
    check_target(config)
    check_cluster(config)
    if config.dry_run and config.resume:
        raise ConfigError("dry_run=true plans a whole sweep; leave out resume=true")
    for name in ("rate", "delay", "hosts"):
        value = getattr(config.network, name)
        if config.network.kind == "none" and value is not None:
            raise ConfigError(f"network.{name}={value} needs network=lab; with network=none, valid: null")
    ranks = config.gpus if config.scaling == "strong" else 1
    if config.batch_tokens is None and config.batch_size % (ranks * config.accumulate):
        raise ConfigError(
            f"batch_size={config.batch_size} cannot be shared evenly by gpus={config.gpus} (scaling={config.scaling}) "
            f"and accumulate={config.accumulate}; valid: a multiple of {ranks * config.accumulate}"
        )


def check_engine_options(config: Config, conf: Path = CONF) -> None:
    """Raises ConfigError for an option that the engine does not have by its file in ``conf``.

    A person's own engine has none there; a workload checks its own, by its factory's arguments.
    """
    files = [file for file in group_files("engine", conf).values() if file.get("package") == config.engine["package"]]
    option_names = {name for file in files for name in file}
    unknown = sorted(config.engine.keys() - option_names)
    if files and unknown:
        valid = ", ".join(sorted(option_names - {"name", "package"})) or "none"
        raise ConfigError(f"engine.{unknown[0]} is not an option of engine={config.engine['name']}; valid: {valid}")


def check_cluster(config: Config) -> None:
    """Raises ConfigError for settings of a cluster that its kind has no use for, or lacks."""
    cluster = config.cluster
    needs = {"hosts": ("ssh",), "address": ("env", "ssh", "slurm", "ray")}
    needs |= dict.fromkeys(("interface", "ranks_per_host", "leave_out_below"), needs["address"])
    needs |= dict.fromkeys(("partition", "time", "options"), ("slurm",)) | {"nodes": ("slurm", "ray")}
    for name, kinds in needs.items():
        value = getattr(cluster, name)
        if value not in (None, {}) and cluster.kind not in kinds:
            raise ConfigError(
                f"cluster.{name}={as_written(value)} needs cluster={' or '.join(kinds)}; "
                f"with cluster={cluster.kind}, valid: {'{}' if isinstance(value, dict) else 'null'}"
            )
    if cluster.kind == "ssh" and not cluster.hosts:
        raise ConfigError("cluster=ssh needs cluster.hosts; valid: a list of names or addresses, such as [a,b]")
    if cluster.kind != "local" and config.network.kind != "none":
        raise ConfigError(
            f"network={config.network.kind} emulates hosts on one machine; with cluster={cluster.kind}, "
            "valid: network=none"
        )


def check_schedule(config: Config) -> None:
    """Raises ConfigError for a schedule without an end, or an end without a schedule."""
    falls = config.lr_schedule != "constant"
    if falls != (config.lr_steps is not None):
        valid = f"a whole number above lr_warmup={config.lr_warmup}" if falls else "null"
        raise ConfigError(
            f"lr_steps={as_written(config.lr_steps)} is not valid with lr_schedule={config.lr_schedule}; valid: {valid}"
        )
    if config.lr_steps is not None and config.lr_steps <= config.lr_warmup:
        raise ConfigError(f"lr_steps={config.lr_steps} is not valid; valid: more than lr_warmup={config.lr_warmup}")


def check_search(config: Config) -> None:
    """Raises ConfigError for settings that a search for the largest batch needs, or that have no effect in it."""
    if config.search == "none":
        for name in ("memory_limit", "search_most"):
            if getattr(config, name) is not None:
                raise ConfigError(f"{name}={getattr(config, name)} needs search=max_batch; else, valid: null")
        return
    if not config.measure.memory:
        raise ConfigError("search=max_batch needs measure.memory=true: it measures nothing else")
    if config.measure.trace:
        raise ConfigError("search=max_batch has no measure.trace: its launches are of many batches; set it to false")
    if config.straggler.rank is not None:
        raise ConfigError("search=max_batch has no straggler.rank: only timed steps are slowed, and it times none")


def check_loader(config: Config) -> None:
    """Raises ConfigError for a DataLoader whose steps are not timed, or whose lead over them cannot be seen."""
    if config.data != "loader":
        return
    if config.engine["name"] == NO_ENGINE:
        raise ConfigError(f"data=loader needs a workload that trains; workload={config.workload['name']} does not")
    if config.search != "none":
        raise ConfigError(f"data=loader is not valid with search={config.search}, which times no steps")
    if config.target_loss is not None:
        raise ConfigError(
            "data=loader is not valid with target_loss: it would read ahead while ranks compare their losses off the "
            "clock; valid: data=pool"
        )


def check_target(config: Config) -> None:
    """Raises ConfigError for settings that leave no loss of a whole training to look at."""
    if config.target_loss is None:
        return
    where = f"target_loss={config.target_loss:g}"
    if config.engine["name"] == NO_ENGINE:
        raise ConfigError(f"{where} needs a workload that trains; workload={config.workload['name']} does not")
    if config.steps < WINDOW:
        raise ConfigError(
            f"{where} looks at the loss of {WINDOW} steps; steps={config.steps} is not valid; valid: {WINDOW} or more"
        )
    if config.search != "none":
        raise ConfigError(f"{where} is not valid with search={config.search}, which times no steps")
    if config.measure.profile:
        raise ConfigError(
            f"{where} is not valid with measure.profile=true: launches without communication train something else"
        )
    if config.data_skew == "samples":
        raise ConfigError(f"{where} is not valid with data_skew=samples: ranks have unequal numbers of steps")


def check_sweep(configs: list[Config]) -> None:
    """Raises ConfigError if a setting of the whole sweep differs between its cells, or has no effect in any."""
    for path in with_role("sweep"):
        values = []
        for config in configs:
            value = value_at(config, path)
            if value not in values:
                values.append(value)
        if len(values) > 1:
            raise ConfigError(f"{path} cannot be swept: it applies to the whole sweep; give it a single value")
    loads = [config.data == "loader" for config in configs]
    for path, _, default in each_setting(Config()):
        kind = "loader" if path.startswith("loader.") else "pool" if path == "measure.batch_pool" else None
        others = [value_at(config, path) for config in configs if value_at(config, path) != default]
        if kind and others and not any(is_loader == (kind == "loader") for is_loader in loads):
            raise ConfigError(f"{path}={as_written(others[0])} needs data={kind}")
    timed = [config.workload for config in configs if config.workload["name"] == "calibrated"]
    delays = [workload["read_s"] for workload in timed if workload.get("read_s")]
    if delays and not any(loads):
        raise ConfigError(f"workload.read_s={as_written(delays[0])} needs data=loader; with data=pool, valid: 0")
    slowed = [config.straggler.rank is not None for config in configs]
    idle = [config.straggler.factor for config in configs if config.straggler.factor != Straggler.factor]
    if idle and not any(slowed):
        raise ConfigError(f"straggler.factor={idle[0]:g} needs straggler.rank; with null, valid: {Straggler.factor:g}")


def value_at(config: Config, path: str) -> Any:
    """The value of a setting by its dotted path."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def check_value(path: str, spec: dataclasses.Field[Any], value: Any) -> None:
    """Raises ConfigError if ``value`` has the wrong type for the setting or lies outside its bounds."""
    is_large = isinstance(value, int) and abs(value) > LARGEST
    is_scalar = isinstance(value, int | float) and type_name(spec) == "str"  # a word that YAML reads as a number
    if is_valid(spec, as_written(value) if is_scalar else value) and not is_large:
        return
    text = shown(str(value)) if isinstance(value, str) and type_name(spec) != "str" else cut(as_written(value))
    raise ConfigError(f"{path}={text} is not valid; valid: {valid_values(spec)}{f' (at most {LARGEST})' * is_large}")
