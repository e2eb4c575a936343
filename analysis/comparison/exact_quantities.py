"""The exact quantities of a cell: counted or decided, never timed. The same code gives the same numbers everywhere.

``quantities`` is what the exact gate (``analysis.comparison.counter_check``) compares. A quantity that the ranks do not
share is one text, rank by rank.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.metrics.traffic import ledgers, sent_bytes
from analysis.theory import has_exact_peak
from results.identity import flatten, settings_of
from results.launches import Collective
from results.record import Record
from results.training_settings import NEUTRAL

Value = int | float | str | bool | None
"""None stands for what is not there."""
Quantities = dict[str, Value]


def name(record: Record) -> str:
    """A cell in words that outlive new settings, such as ``native stage 2, 3 ranks, mlp fp32, bucket_mb=0.02``."""
    named = settings_of(record)
    parts = [
        f"{named.get('engine')} stage {named.get('stage')}",
        f"{named.get('gpus')} ranks",
        f"{named.get('workload')} {named.get('precision')}",
    ]
    return ", ".join(parts + [f"{name}={named[name]}" for name in NEUTRAL if is_set(name, named)])


def is_set(name: str, named: Mapping[str, Any]) -> bool:
    """Whether an optional setting asks for something."""
    return named.get(name) not in (None, NEUTRAL[name])


def engine(record: Record) -> str:
    return str(record.config["engine"]["name"])


def quantities(record: Record) -> Quantities:
    """Everything exact of a cell; of one that did not end ok, its status and, if it was judged, its parity."""
    values: Quantities = {"status": record.status}
    if record.parity is not None:
        values["parity"] = record.parity.outcome
    if record.status != "ok":
        return values
    values["launches"] = len(record.launches)
    if record.model is not None:
        values["model: parameters"] = record.model.parameter_count
        values["model: buffers, bytes"] = record.model.buffer_bytes
        values["model: FLOPs per unit"] = record.model.flops_per_unit
        if record.model.recomputed_flops_per_unit:
            values["model: recomputed FLOPs per unit"] = record.model.recomputed_flops_per_unit
    return values | _memory(record) | _collectives(record) | _description(record)


def _memory(record: Record) -> Quantities:
    if not record.memory:
        return {}
    kinds = list(dict.fromkeys(kind for rank in record.memory for kind in rank.state_bytes))
    values = {
        f"state: {kind}, bytes": by_rank([rank.state_bytes.get(kind, 0) for rank in record.memory]) for kind in kinds
    }
    host_kinds = list(dict.fromkeys(kind for rank in record.memory for kind in rank.host_state_bytes))
    values |= {
        f"host state: {kind}, bytes": by_rank([rank.host_state_bytes.get(kind, 0) for rank in record.memory])
        for kind in host_kinds
    }
    if any(rank.copied_to_host_bytes is not None for rank in record.memory):
        values["copied to host, bytes"] = by_rank([rank.copied_to_host_bytes or 0 for rank in record.memory])
        values["copied to device, bytes"] = by_rank([rank.copied_to_device_bytes or 0 for rank in record.memory])
    if has_exact_peak(record):
        values["at rest, bytes"] = by_rank([rank.rest_bytes for rank in record.memory])
        # A late release can only add to a step's peak.
        values["peak, bytes"] = by_rank([min(rank.step_peaks_bytes or [rank.peak_bytes]) for rank in record.memory])
    else:  # memory that a late thread has not freed is of one kind
        late = [rank.rest_by_kind.get("communication", 0) for rank in record.memory]
        own = [rank.rest_bytes - late_bytes for rank, late_bytes in zip(record.memory, late, strict=True)]
        values["at rest without communication, bytes"] = by_rank(own)
    return values


def _collectives(record: Record) -> Quantities:
    """Calls of each collective in a step, and bytes that a rank sends."""
    if record.collectives is None:
        return {}
    ranks = ledgers(record)
    lines = sorted({_line(call) for ledger in ranks for call in ledger})
    values = {line: by_rank([_calls(ledger, line) for ledger in ranks]) for line in lines}
    values["collectives in a step"] = by_rank([sum(call.count for call in ledger) for ledger in ranks])
    sent = sent_bytes(record)
    return values | ({} if sent is None else {"sent by a rank, bytes": round(sent, 3)})


def _line(call: Collective) -> str:
    return f"{call.kind} {call.dtype}[{call.elements}] among {call.group_size}"


def _calls(ledger: Sequence[Collective], line: str) -> int:
    return sum(call.count for call in ledger if _line(call) == line)


def _description(record: Record) -> Quantities:
    """The settings that took effect, in the engine's own words: its buckets, what it reduces in, what it wraps with."""
    described = flatten(record.resolved.get("engine") or {})
    described.pop("library", None)
    return {f"engine: {key}": _plain(value) for key, value in described.items() if value is not None}


def _plain(value: Any) -> Value:
    return value if isinstance(value, int | float | str) else json.dumps(value, sort_keys=True)


def by_rank(values: Sequence[int]) -> Value:
    """One number where all ranks have it, else theirs in order, such as ``16 | 16 | 12``."""
    return values[0] if len(set(values)) == 1 else " | ".join(map(str, values))


def settings(records: Sequence[Record]) -> Quantities:
    """The settings that all cells share, workload and all; those of the engines are in their own words above."""
    shared: Quantities | None = None
    for record in records:
        mine = {key: _plain(value) for key, value in settings_of(record).items() if not key.startswith("engine")}
        shared = mine if shared is None else {key: value for key, value in shared.items() if mine.get(key) == value}
    return {key: value for key, value in (shared or {}).items() if value != "null"}


def libraries(records: Sequence[Record]) -> dict[str, dict[str, str]]:
    """By engine, what its numbers depend on in addition to our code: the libraries and their versions."""
    by_engine: dict[str, dict[str, str]] = {}
    for record in records:
        used = by_engine.setdefault(engine(record), {"torch": str(record.environment.get("torch"))})
        match = re.fullmatch(r"(\w+) (\S+)", str((record.resolved.get("engine") or {}).get("library", "")))
        if match and match[1] != "torch":
            used[match[1]] = match[2]
    return by_engine


def changed_libraries(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Such as ``torch 2.15.0 -> 2.16.0``; a library that one side does not name is left out."""
    return [f"{key} {before[key]} -> {now[key]}" for key in before if key in now and before[key] != now[key]]
