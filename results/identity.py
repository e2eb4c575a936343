"""The identity of a cell: its settings and its hardware, and their text in reports."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from results.declare import each_setting, info
from results.environment import Environment
from results.record import Record
from results.settings import Config, with_role

UNRELATED = (*with_role("sweep", "instrument"), "engine.package", "workload.factory")
"""Settings of the sweep and its instruments, and where code lies; they do not make another configuration."""

TASK = (*with_role("task"), "machine")
"""What work is done, and where. Settings are compared only where these are equal."""

REQUEST_SUFFIX = "_requested"
"""Ends the column of a setting whose own column has what it resolved to."""

INFO = {path: info(spec) for path, spec, _ in each_setting(Config())}
"""What is known about each setting, by its dotted path."""

UNSET = ("null", '"none"', '"pool"', "false", "1")
"""Default of a setting, ``frozen``: the first of these values that any record has."""


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict as dotted names; lists stay whole."""
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def settings_of(record: Record) -> dict[str, Any]:
    """The settings of a cell as they were asked for: ``engine`` and ``workload`` are names, the rest is dotted."""
    named = {}
    for name, value in flatten(record.config).items():
        if not name.startswith(UNRELATED):
            named[name.removesuffix(".name") if name in ("engine.name", "workload.name") else name] = value
    return named


def frozen(value: Any) -> str:
    """A setting's value as something that can be compared and hashed, whatever its type."""
    return _dumped(value) if isinstance(value, str | int | float | None) else _dumped.__wrapped__(value)


def as_written(value: Any) -> str:
    """A value as a person would give it: text as it is, else JSON such as ``true`` and ``null``."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has other names for them
    return value if isinstance(value, str) else frozen(value)


@lru_cache(maxsize=4096, typed=True)  # True is not 1, nor is 1 here 1.0
def _dumped(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def identity(named: Mapping[str, Any], without: Iterable[str] = ()) -> tuple[tuple[str, str], ...]:
    """The settings of a cell, less some, as a key."""
    left_out = set(without)
    return tuple(sorted((name, frozen(value)) for name, value in named.items() if name not in left_out))


def completed(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The settings of cells that several versions of the code ran, each with all that the others of its kind have.

    A record does not have the settings that came after it. They are taken for unset (``UNSET``); where no cell has them
    so, for the only value that they have, and of several for null, which then is none of them. A kind is an engine and
    a workload: others have other options.
    """
    kinds = [(cell.get("engine"), cell.get("workload")) for cell in cells]
    values: dict[Any, dict[str, dict[str, Any]]] = {kind: {} for kind in kinds}
    for kind, cell in zip(kinds, cells, strict=True):
        for name, value in cell.items():
            values[kind].setdefault(name, {})[frozen(value)] = value
    usual = {kind: {name: _usual(entries) for name, entries in named.items()} for kind, named in values.items()}
    return [usual[kind] | dict(cell) for kind, cell in zip(kinds, cells, strict=True)]


def _usual(values: Mapping[str, Any]) -> Any:
    unset = [values[key] for key in UNSET if key in values]
    return unset[0] if unset else next(iter(values.values())) if len(values) == 1 else None


def is_task(name: str) -> bool:
    """Whether a setting, by its name or its column's, belongs to the task."""
    return name.removesuffix(REQUEST_SUFFIX) in TASK or name.startswith("workload.")


def hardware(record: Record) -> str:
    """The hardware of a cell: its GPUs if it uses them, processor and cores."""
    environment = record.environment
    device = record.resolved.get("device") or record.config.get("device")
    cores = record.resolved.get("cores") or environment.get("cores")
    parts = gpus(environment) if device != "cpu" else []
    parts += [str(environment.get("cpu_model") or "unknown processor")]
    return ", ".join([*parts, f"{cores:g} cores"] if cores else parts)


def gpus(environment: Environment) -> list[str]:
    """The GPUs of a machine, those of one name together, such as ``8 × NVIDIA H200``."""
    names = [gpu.get("name", "GPU") for gpu in environment.get("gpus", [])]
    return [f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]
