"""What sets the code and the machine of two records apart."""

from __future__ import annotations

from typing import Any

from results.record import Record
from results.source import Source

FINGERPRINT = ("torch", "cpu_model", "cores", "gpus", "host_count")
"""What must be equal for two records to belong to one sweep."""

RUNS_WITH = ("python", "packages", "cuda", "cudnn", "nccl", "variables")
"""Entries of the environment that are as good as other code."""


def machine_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What sets two environments apart, as ``torch: 2.11.0 then, 2.15.0 now``."""
    return [
        f"{key}: {before.get(key)} then, {now.get(key)} now" for key in FINGERPRINT if before.get(key) != now.get(key)
    ]


def code_differences(before: Record, source: Source, environment: dict[str, Any]) -> str:
    """What sets a record's code, and what it ran with, apart from the present; empty if nothing does."""
    changes = []
    if before.source is None or before.source.digest != source.digest:
        code = before.source.described() if before.source else "code that was not recorded"
        changes.append(f"{code} then, {source.described()} now")
    for name in RUNS_WITH:
        then, now = before.environment.get(name), environment.get(name)
        if isinstance(then, dict) and isinstance(now, dict):
            keys = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
            changes += [f"{key}: {then.get(key)} then, {now.get(key)} now" for key in keys]
        elif then != now:
            changes.append(f"{name}: {then} then, {now} now")
    return "; ".join(changes)
