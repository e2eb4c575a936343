"""Differences between the code, the machine and the settings of records, in the order of their declaration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from results.entries import entries, entries_with_role
from results.environment import Environment
from results.identity import as_written, flatten
from results.record import Record
from results.source import Source

ONE_SWEEP = entries_with_role(Environment, "hardware", "platform")
"""Entries of the environment that are equal for all records of one sweep."""
LIBRARIES = entries_with_role(Environment, "library")
"""Entries of the environment that are as good as other code."""
NOT_COMPARED = entries_with_role(Environment, "moment", "source")
ORDER = {name: at for at, name in enumerate(("code", "uv.lock", "resolved", *entries(Environment)))}
NOT_RECORDED = "not recorded"

Facts = Mapping[str, Any]
"""Values by dotted name."""


@dataclass(frozen=True)
class Difference:
    """One entry that is not the same on both sides; several values of a side are separated by commas."""

    name: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.name}: {self.then} then, {self.now} now"


def differences(then: Iterable[Facts], now: Iterable[Facts]) -> list[Difference]:
    """The entries of two sets of records that are not the same; code, environment, then others."""
    sides = [_values(then), _values(now)]
    names = sides[0] | sides[1]
    texts = {name: [", ".join(sorted(side.get(name, {NOT_RECORDED}))) for side in sides] for name in names}
    unequal = [Difference(name, *pair) for name, pair in texts.items() if pair[0] != pair[1]]
    return sorted(unequal, key=lambda entry: ORDER.get(entry.name.partition(".")[0], ORDER.get(entry.name, len(ORDER))))


def _values(records: Iterable[Facts]) -> dict[str, set[str]]:
    values: dict[str, set[str]] = {}
    for facts in records:
        for name, value in facts.items():
            values.setdefault(name, set()).add(as_written(value))
    return values


def surroundings(record: Record) -> dict[str, Any]:
    """The code and the environment of a record, without what differs between any two sweeps."""
    environment = dict(record.environment)
    hosts = environment.pop("hosts", None)
    facts = {name: value for name, value in flatten(environment).items() if name.partition(".")[0] not in NOT_COMPARED}
    facts |= by_host("hosts", hosts)
    if record.source:
        facts["code"] = f"{record.source.described()}, files {record.source.digest[:10]}"
        facts["uv.lock"] = record.source.lock_digest[:16] or "none"
    return facts


def resolved(record: Record) -> dict[str, Any]:
    """The resolved settings of a record."""
    settings = dict(record.resolved)
    hosts = settings.pop("hosts", None)
    return flatten({"resolved": settings}) | by_host("resolved.hosts", hosts)


def by_host(name: str, hosts: object) -> dict[str, Any]:
    """A list of hosts as one entry for each host and name, without what differs between any two sweeps."""
    described = [host for host in hosts if isinstance(host, dict)] if isinstance(hosts, list) else []
    lasting = [{key: value for key, value in host.items() if key not in NOT_COMPARED} for host in described]
    return flatten({name: {str(place): host for place, host in enumerate(lasting)}}) if lasting else {}


def machine_differences(before: Environment, now: Environment) -> list[Difference]:
    """Why two environments cannot belong to one sweep."""
    return differences([_entries(before, ONE_SWEEP)], [_entries(now, ONE_SWEEP)])


def code_differences(before: Record, source: Source, environment: Environment) -> str:
    """Differences between a record's code, and what it ran with, and the present; empty if there are none."""
    changes = []
    if before.source is None or before.source.digest != source.digest:
        code = before.source.described() if before.source else "code that was not recorded"
        changes.append(f"{code} then, {source.described()} now")
    libraries = differences([_entries(before.environment, LIBRARIES)], [_entries(environment, LIBRARIES)])
    return "; ".join([*changes, *map(str, libraries)])


def _entries(environment: Environment, names: Iterable[str]) -> dict[str, Any]:
    return flatten({name: environment.get(name) for name in names})
