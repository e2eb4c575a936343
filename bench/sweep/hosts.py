"""The hosts of a sweep: a check that they run the same code, and their environments for the record."""

from __future__ import annotations

from collections.abc import Sequence

from bench.checks import ConfigError
from bench.launch.launcher import Host
from bench.launch.server_process import server_environment
from bench.measure.machine import environment
from results.entries import entries
from results.environment import Environment
from results.source import Source

BY_HOST = tuple(name for name, entry in entries(Environment).items() if entry.by_host)
"""Entries of the environment that are recorded for each host."""


def check_same_code(hosts: Sequence[Host], code: Source) -> None:
    """Raises ConfigError, naming the host, for other code than this process runs, or another torch than the first."""
    for host in hosts:
        if host.digest and host.digest != code.digest:
            differs = f"other code (files {host.digest[:10]}; here {code.digest[:10]})"
        elif host.digest and host.lock_digest != code.lock_digest:
            differs = "the code with another uv.lock"
        elif host.machine.torch != hosts[0].machine.torch:
            differs = f"torch {host.machine.torch}; {hosts[0].name} has {hosts[0].machine.torch}"
        else:
            continue
        raise ConfigError(f"host {host.name} runs {differs}; all hosts must run the same: copy this folder there")


def environment_of(hosts: Sequence[Host], code: Source) -> Environment:
    """The environment of the ranks: the first host's, with the entries that each host of a cluster has of its own."""
    first = hosts[0]
    if first.environment is None:
        return environment.collect(first.machine, server_environment(), code)
    each = [
        {"name": host.name, "interface": host.interface, "cores": host.cores}
        | {name: (host.environment or {}).get(name) for name in BY_HOST}
        for host in hosts
    ]
    own: Environment = {"git": environment.git(code), "host_count": len(hosts), "hosts": each}
    return first.environment | own
