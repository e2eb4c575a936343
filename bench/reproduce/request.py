"""The request of ``reproduce=RECORD``: the record, and the configuration of its cell with resolved settings.

A record is data. It names engines and workloads, and of these only such as conf/ has are run; a person's own code is
run where the same name is given with ``reproduce=`` (``workload=module:...``, ``hydra.searchpath=...``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from bench.checks import ConfigError, check, check_engine_options
from bench.cli.overrides import overrides_of
from bench.groups import CONF, default_option, group_files
from bench.plan.hosts import ranks_by_host
from results.decode import decode
from results.host_settings import Cluster
from results.record import NO_ENGINE, Record, RecordError
from results.settings import Config, Tracking
from results.shown import cut, printable, shown

FREE = ("repeats", "timeout_s", "data_dir", "measure.timing_breakdown")
"""Settings that do not change the cell; ``data_dir`` because the record knows the data by their digest."""
RUN_ID = re.compile("[0-9a-f]{32}")


class CannotReproduce(ConfigError):
    """The cell cannot be run again here; the message is the reason, in one line."""


def is_reproduction(arguments: list[str]) -> bool:
    """Whether the command's arguments ask for a record to be reproduced."""
    return any(
        override.key_or_group == "reproduce" and override.value() is not None for override in overrides(arguments)
    )


def overrides(arguments: list[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(overrides_of(arguments))


def check_arguments(arguments: list[str]) -> None:
    """Raises CannotReproduce for an override next to ``reproduce=`` that would make it another cell, and names it."""
    if "-m" in arguments or "--multirun" in arguments:
        raise CannotReproduce("reproduce= runs the one configuration of a record; leave out -m")
    for override in overrides(arguments):
        name = override.key_or_group
        own_model = name == "workload.path" or override.input_line == "workload=module"
        if name not in ("reproduce", *FREE) and not own_model and not name.startswith(("hydra", "tracking", "cluster")):
            raise CannotReproduce(
                f"{override.input_line} would make it another configuration than the record's; valid with reproduce=: "
                f"{', '.join(FREE)}, cluster, cluster.*, tracking, tracking.*, hydra.*"
            )


def fetch(place: str, tracking: Tracking) -> Record:
    """The record in a file or of an MLflow run. Raises CannotReproduce."""
    path = Path(place)
    try:
        if path.is_dir():
            files = sorted(entry.name for entry in path.glob("records/*.json"))
            example = f", such as {path / 'records' / files[0]}" if files else ""
            raise CannotReproduce(f"reproduce={place} is a folder; valid: one record's file{example}")
        if path.is_file() or not RUN_ID.fullmatch(place):
            if not path.is_file():
                raise CannotReproduce(f"reproduce={place}: no such file, nor the id of an MLflow run (32 hex digits)")
            return Record.read(path)
        return of_run(place, tracking)
    except RecordError as error:
        newer = " (a record of newer code needs that code)" if "unknown field" in str(error) else ""
        raise CannotReproduce(f"{error}{newer}") from error


def of_run(run_id: str, tracking: Tracking) -> Record:
    """The record of a cell's MLflow run. Raises RecordError."""
    from results.mlflow_store import run_records
    from results.read import NoRecords

    if tracking.kind == "none" or tracking.uri is None:
        raise RecordError(f"MLflow run {run_id}: tracking={tracking.kind} names no store; give tracking.uri=...")
    try:
        records = run_records(tracking.uri, run_id).records
    except NoRecords as error:
        raise RecordError(f"MLflow run {run_id}: {error}") from error
    if len(records) != 1:
        raise RecordError(
            f"run {run_id} holds {len(records)} records, so it is no configuration's run; valid: a child of a sweep"
        )
    return records[0]


def config_of(record: Record) -> Config:
    """The cell's configuration with what it resolved to. Raises CannotReproduce for what this code does not know."""
    code = record.source.described() if record.source else "code that it does not name"
    values = dict(record.config)
    if isinstance(values.get("engine"), dict) and values["engine"].get("name") == NO_ENGINE:
        values["engine"] = dict(group_files("engine")[default_option("engine")])
    try:
        config: Config = decode(values, Config, "config")
        for name, kind in (("device", str), ("backend", str), ("threads", int)):
            setattr(config, name, decode(record.resolved.get(name), kind, f"resolved.{name}"))
        check(config)
        check_engine_options(config)
    except (ConfigError, ValueError) as error:
        raise CannotReproduce(f"this code does not know the record's settings: {error} (they are of {code})") from error
    if host_ranks(record):
        config.cluster.ranks_per_host = filled_by(host_ranks(record)) or config.cluster.ranks_per_host
    return replace(config, resume=False, reproduce=None)


def host_ranks(record: Record) -> list[int]:
    """Ranks on each host of the record's cluster; empty for one machine."""
    return [int(host["ranks"]) for host in record.resolved.get("hosts", [])]


def filled_by(counts: Sequence[int]) -> int | None:
    """The ``cluster.ranks_per_host`` that places ranks so; None if no one number does."""
    return counts[0] if ranks_by_host(sum(counts), [1] * len(counts), max(counts)) == list(counts) else None


def check_hosts(record: Record, cluster: Cluster) -> None:
    """Raises CannotReproduce if the record's ranks ran on several hosts, and ``cluster`` is one machine."""
    if len(host_ranks(record)) > 1 and cluster.kind == "local":
        places = ", ".join(f"{host['name']}: {host['ranks']}" for host in record.resolved["hosts"])
        raise CannotReproduce(
            f"the record's ranks ran on {len(host_ranks(record))} hosts ({printable(places)}); add cluster=env, slurm, "
            "ray or ssh, with as many hosts, to reproduce="
        )


def chosen(config: Config, settings: Config, changes: Sequence[Override]) -> Config:
    """The record's configuration, logged as ``settings`` say, with ``changes`` of how it is measured."""
    given = {override.key_or_group: override.value() for override in changes}
    check_code(config, given)
    config.tracking = settings.tracking
    spread = config.cluster.ranks_per_host if settings.cluster.kind != "local" else None
    config.cluster = replace(settings.cluster, ranks_per_host=spread)
    check(config)
    for name in ("repeats", "timeout_s", "data_dir"):
        if name in given:
            setattr(config, name, getattr(settings, name))
    config.measure.timing_breakdown = settings.measure.timing_breakdown
    if config.data_dir is not None and not Path(config.data_dir).is_dir():
        raise CannotReproduce(
            f"data_dir={config.data_dir} of the record is no folder here; valid: data_dir=FOLDER with the same data"
        )
    return config


def check_code(config: Config, given: dict[str, Any]) -> None:
    """Raises CannotReproduce for code that only the record names."""
    path = config.workload.get("path")
    if "path" in config.workload and not isinstance(path, str):
        raise CannotReproduce(f"workload.path={shown(path)} of the record is not valid; valid: module:attribute")
    if given.get("workload.path") != path:
        raise CannotReproduce(
            "workload= would make it another configuration than the record's; leave it out"
            if path is None
            else f"the record's model is a person's own code; to run it, add workload=module:{path} to reproduce="
        )
    folders = [CONF, *own_folders(given.get("hydra.searchpath"))]
    for group, key, value in (
        ("engine", "package", config.engine.get("package")),
        ("workload", "factory", config.workload.get("factory")),
    ):
        if value not in [file.get(key) for folder in folders for file in group_files(group, folder).values()]:
            places = ", ".join(f"{folder.name}/{group}" for folder in folders)
            raise CannotReproduce(
                f"{group}.{key}={cut(str(value))} of the record is not in {places}; if it is code that you trust, name "
                "the folder of its configuration as the sweep did: add hydra.searchpath=[file://FOLDER] to reproduce="
            )


def own_folders(searchpath: Any) -> list[Path]:
    """The folders of user configurations. Raises CannotReproduce for those that cannot be read here."""
    folders = []
    for place in [] if searchpath is None else [str(place) for place in searchpath]:
        if not place.startswith("file://"):
            raise CannotReproduce(f"hydra.searchpath={place} is not valid with reproduce=; valid: file://FOLDER")
        folders.append(Path(place.removeprefix("file://")).resolve())
    return folders
