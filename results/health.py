"""What a health check measured of the hosts of a cluster and of the links between them, before a sweep."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class HostHealth:
    """One host."""

    name: str
    flops_per_s: list[float] = field(default_factory=list)
    """Peak rate of matrix products of each of its devices, all devices of all hosts at once; a CPU is one device."""
    clock_offset_s: float | None = None
    """Its wall clock minus the coordinator's; None where it did not answer."""
    clock_bound_s: float | None = None
    """The offsets are exact to within this: half of the shortest round trip of an exchange."""
    monotonic_offset_s: float | None = None
    """Its monotonic clock minus the coordinator's."""
    disk_free_bytes: int | None = None
    """Where its host server keeps files."""
    shared_memory_free_bytes: int | None = None
    """In /dev/shm."""
    busy_gpus: list[str] = field(default_factory=list)
    """Visible GPUs that another process uses."""
    problems: list[str] = field(default_factory=list)
    """What sets it apart from the other hosts or may spoil a sweep, with the numbers."""
    is_left_out: bool = False
    """Whether ``cluster.leave_out_below`` excluded it from the sweep."""


@dataclass(frozen=True)
class HostLink:
    """The link from one host to another."""

    source: int
    """Index among the hosts."""
    target: int
    latency_s: float
    """One way: half of the shortest round trip of 8 bytes, over the collective backend."""
    bytes_per_s: float
    """Of the fastest of several large messages."""


@dataclass(frozen=True)
class Health:
    """All hosts in the order in which ranks fill them, and the links between each two."""

    hosts: list[HostHealth]
    links: list[HostLink] = field(default_factory=list)
    not_measured: str = ""
    """Why peaks and links are missing; empty if they were measured."""
