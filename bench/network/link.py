"""A link of the emulated network: its rate and its delay."""

from __future__ import annotations

from dataclasses import dataclass

from results.host_settings import Network
from results.quantities import bits_per_s, delay_s

INTERFACE = "lab0"
"""What a host's link is called within the host."""


@dataclass(frozen=True)
class Link:
    """The link between emulated hosts of a launch."""

    bits_per_s: float | None
    """What each host sends and receives at most; None: as fast as the machine can."""
    delay_s: float
    """From any host to any other, one way."""
    hosts: int
    """Hosts that ranks are placed on, in order. Each server has a host of its own in addition."""

    def host_of(self, number: int, ranks: int) -> int:
        """The host of a rank, or (from ``ranks`` on) of a server."""
        return number * self.hosts // ranks if number < ranks else self.hosts + number - ranks


def link_of(network: Network, ranks: int) -> Link | None:
    """The links between the emulated hosts of so many ranks; None without network emulation."""
    if network.kind == "none":
        return None
    rate = None if network.rate is None else bits_per_s(network.rate)
    return Link(rate, delay_s(network.delay) if network.delay else 0.0, network.hosts or ranks)
