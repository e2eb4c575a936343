"""The counterpart of a configuration: the one of its sweep that differs in one respect, such as overlap or offload."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from results.identity import identity, settings_of
from results.record import Record


def counterparts(
    records: Sequence[Record], differing: Collection[str], is_counterpart: Callable[[Record], bool]
) -> list[Record | None]:
    """One entry per record: the one of its sweep that ``is_counterpart`` and has its settings, except ``differing``."""
    keys = [(record.sweep_id, identity(settings_of(record), without=differing)) for record in records]
    by_key = {key: record for key, record in zip(keys, records, strict=True) if is_counterpart(record)}
    return [by_key.get(key) for key in keys]
