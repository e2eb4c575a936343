"""The launcher protocol: the same for one machine and for a cluster of hosts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bench.job import Job, LaunchResult, R
from bench.measure.machine.torch_build import Machine
from results.environment import Environment


class LaunchError(RuntimeError):
    """No fork server could be started."""


@dataclass(frozen=True)
class Host:
    """A machine with a warm fork server."""

    name: str
    machine: Machine
    cores: float
    """CPUs that ranks may use there."""
    interface: str = ""
    """Its network interface to the other hosts; empty where there are none."""
    digest: str = ""
    """Of the files that measure (``results.source``); empty for this machine."""
    lock_digest: str = ""
    environment: Environment | None = None
    """What it runs on (``bench.measure.machine.environment``); None for this machine, which reads its own."""


class Launcher(Protocol):
    """Starts the ranks of one job at a time on its hosts."""

    status: int
    """The sweep's exit status: commands that serve as hosts (cluster=env) exit with it too."""

    @property
    def hosts(self) -> list[Host]:
        """The hosts that ranks may run on, at least one; waits until they are warm. Raises LaunchError."""
        ...

    @property
    def machine(self) -> Machine:
        """The first host's. Raises LaunchError."""
        ...

    def launch(self, job: Job[R]) -> LaunchResult[R]:
        """Runs all ranks of ``job`` to their end. Never raises for what a rank or a host does."""
        ...

    def close(self) -> None:
        """Ends the servers of all hosts and, with them, all that they started."""
        ...
