"""The hosts of a sweep: a check that they run the same code, their health, and their environments for the record."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench.checks import ConfigError
from bench.launch.cluster.launcher import ClusterLauncher
from bench.launch.launcher import Host, Launcher
from bench.launch.server_process import server_environment
from bench.measure.machine import environment
from bench.preflight import hosts as preflight
from bench.preflight import table
from results.entries import entries
from results.environment import Environment
from results.health import Health
from results.host_settings import Cluster
from results.source import Source

BY_HOST = tuple(name for name, entry in entries(Environment).items() if entry.by_host)
"""Entries of the environment that are recorded for each host."""


def check_same_code(hosts: Sequence[Host], code: Source) -> None:
    """Raises ConfigError, naming the host, for other code than this process runs, or other versions than the first."""
    for host in hosts:
        if host.digest and host.digest != code.digest:
            differs = f"other code (files {host.digest[:10]}; here {code.digest[:10]})"
        elif host.digest and host.lock_digest != code.lock_digest:
            differs = "the code with another uv.lock"
        elif other := versions(host).items() - versions(hosts[0]).items():
            name, version = min(other)
            differs = f"{name} {version}; {hosts[0].name} has {versions(hosts[0]).get(name)}"
        else:
            continue
        raise ConfigError(f"host {host.name} runs {differs}; all hosts must run the same: copy this folder there")


def versions(host: Host) -> dict[str, str]:
    """Versions of Python and of the packages that ranks use."""
    environment = host.environment or {}
    packages = {str(name): str(version) for name, version in environment.get("packages", {}).items()}
    return packages | {"torch": host.machine.torch, "python": str(environment.get("python"))}


def health_of(launcher: Launcher, settings: Cluster) -> Health | None:
    """Measures the hosts of a cluster, says what is wrong, and leaves out those below the threshold.

    None for one machine, and with ``cluster.health_check=false``. Raises LaunchError.
    """
    if not isinstance(launcher, ClusterLauncher) or not settings.health_check:
        return None
    health = preflight.check(launcher, settings.leave_out_below)
    print(f"health check: {table.summary(health)}", file=sys.stderr)
    for line in table.problems(health):
        print(f"health check: {line}", file=sys.stderr)
    return health


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
