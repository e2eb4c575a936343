"""Provenance of numbers: sweep and machine in a line each, the whole environment, and the command to repeat them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import pandas as pd

from analysis.table.frame import varying
from analysis.text.labels import label
from analysis.text.units import counted, size
from results.entries import Role, Unit, entries
from results.environment import Environment
from results.identity import flatten, frozen, gpus
from results.record import NO_ENGINE, Record

NOT_REPEATED = ("tracking.", "resume", "engine.package", "workload.factory", "measure.timing_breakdown")
"""Settings that a command to run a sweep again leaves to the reader."""


def sweep_line(records: Sequence[Record], table: pd.DataFrame) -> str:
    """Such as ``8 cells: torch, digits, fp32; stage 0, 1, 2, 3 × 1, 2 ranks; 5 launches of 20 steps``."""
    names = varying(table)
    is_full = len(table) == prod(table[name].map(frozen).nunique() for name in names)
    of_training = ("engine", "stage", "precision", "scaling")
    is_training = bool((table["engine"] != NO_ENGINE).any())
    fixed = [name for name in ("engine", "workload", "stage", "gpus", "precision", "scaling") if name not in names]
    fixed = [name for name in fixed if is_training or name not in of_training]
    parts = [
        ", ".join(label(name, table.iloc[0][name]) for name in fixed),
        (" × " if is_full else "; ").join(_values(name, table[name].tolist()) for name in names),
    ]
    if launches := _range([len(record.launches) for record in records if record.launches]):
        steps = _range(
            [len(launch.step_times_s()) for record in records for launch in record.launches[:1] if launch.ranks]
        )
        of_steps = f" of {_plural(steps, 'measured step')}" if steps else ""
        parts.append(f"{_plural(launches, 'launch')}{of_steps} each")
    return f"{counted(len(records), 'configuration')}: {'; '.join(filter(None, parts))}"


def machine_line(environment: Environment, *roles: Role) -> str:
    """The machine in a line: the entries of its environment that have a label, or of these roles; then the commit."""
    values: Mapping[str, Any] = environment
    parts = [
        entry.label.format(quantity(values[name], entry.unit))
        for name, entry in entries(Environment).items()
        if entry.label and (entry.role in roles or not roles)
        if name in values and (values[name] or entry.unit == "GPU")
    ]
    git = environment.get("git")
    if git and git.get("commit") and not roles:
        parts.append(f"commit {str(git['commit'])[:10]}{' with uncommitted changes' if git.get('dirty') else ''}")
    return ", ".join(parts) or "an unrecorded machine"


def quantity(value: Any, unit: Unit) -> str:
    """A value as a person reads it, such as ``4 cores``, ``3.2 MiB`` or ``8 × NVIDIA H200``."""
    return FORMATS.get(unit, str)(value)


def cores(count: float) -> str:
    """Such as ``4 cores``, or of a quota that is no whole number ``0.5 cores``."""
    return counted(int(count), "core") if count == int(count) else f"{count:g} cores"


FORMATS: dict[Unit, Callable[[Any], str]] = {
    "core": cores,
    "B": size,
    "GPU": lambda listed: ", ".join(gpus({"gpus": listed})) or "no GPU",
}


def environment_rows(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Every entry of the environments, with all of its values if they differ from record to record; and what launches
    could not measure."""
    values: dict[str, dict[str, None]] = {}
    launches = [launch.not_measured for record in records for launch in record.launches]
    for not_measured in (*launches, *(rank.not_measured for record in records for rank in record.memory)):
        for what, why in not_measured.items():
            values.setdefault(f"not_measured.{what}", {})[why] = None
    for environment in {frozen(record.environment): record.environment for record in records}.values():
        for name, value in flatten(environment).items():
            words = value if isinstance(value, str) else frozen(value) if value or value in (0, False) else "none"
            values.setdefault(name, {})[words] = None
    return [(name, _few(list(texts))) for name, texts in values.items()]


def commands(records: Sequence[Record]) -> list[str]:
    """Command lines that run the same cells again, every setting spelled out lest a changed default change them.

    One line for all cells of a sweep with one engine and workload where they are a full product, else one a cell.
    """
    groups: dict[object, list[dict[str, str]]] = {}
    for record in records:
        cell = _overrides(record)
        groups.setdefault((record.sweep_id, cell.get("engine"), cell["workload"], tuple(cell)), []).append(cell)
    lines: list[str] = []
    for cells in groups.values():
        lines += [_command(cells)] if _is_product(cells) else [_command([cell]) for cell in cells]
    return list(dict.fromkeys(lines))


def _overrides(record: Record) -> dict[str, str]:
    overrides = {}
    for name, value in flatten(record.config).items():
        if value in ({}, NO_ENGINE) or name.startswith(NOT_REPEATED):
            continue
        word = json.dumps(value) if value is None or isinstance(value, bool) else str(value)
        if isinstance(value, list):
            word = f"[{','.join(map(str, value))}]"
        overrides[name.removesuffix(".name") if name in ("engine.name", "workload.name") else name] = word
    if "workload.path" in overrides:  # a user's model, which has its own name
        overrides["workload"] = "module"
    return overrides


def _is_product(cells: list[dict[str, str]]) -> bool:
    distinct = {tuple(cell.values()) for cell in cells}
    return len(distinct) == prod(len({cell[name] for cell in cells}) for name in cells[0])


def _command(cells: list[dict[str, str]]) -> str:
    words = ["python", "-m", "bench"] + (["-m"] if len(cells) > 1 else [])
    for name in cells[0]:
        values = list(dict.fromkeys(cell[name] for cell in cells))
        if values != ["null"]:
            words.append(f"{name}={','.join(values)}")
    return shlex.join(words)


def _values(name: str, values: list[Any]) -> str:
    distinct = list({frozen(value): value for value in values}.values())
    if all(isinstance(value, int | float) for value in distinct):
        distinct.sort()
    numbers = ", ".join(map(str, distinct))
    return {"gpus": f"{numbers} ranks", "stage": f"stage {numbers}"}.get(
        name, ", ".join(label(name, value) for value in distinct)
    )


def _range(counts: list[int]) -> str:
    if not counts:
        return ""
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _plural(count: str, noun: str) -> str:
    return counted(1, noun) if count == "1" else f"{count} {counted(2, noun).partition(' ')[2]}"


def _few(values: list[str]) -> str:
    return " | ".join(values[:3]) + (f" | and {len(values) - 3} more" if len(values) > 3 else "")
