"""The network interface that an address of this machine belongs to."""

from __future__ import annotations

import ipaddress
import socket

import psutil

from bench.checks import ConfigError

PROBE_PORT = 9
"""Nothing is sent there: connecting a datagram socket only looks up the route."""


def interface_to(own_address: str) -> str:
    """The interface with this address, by which the connection that has it goes out; empty if none has it."""
    wanted = ipaddress.ip_address(own_address)
    for name, addresses in psutil.net_if_addrs().items():
        for entry in addresses:
            try:
                if ipaddress.ip_address(entry.address.partition("%")[0]) == wanted:
                    return str(name)
            except ValueError:
                continue  # a hardware address
    return ""


def address_of(interface: str, *, like: str) -> str:
    """The address of an interface, of the same family as ``like``; empty if it has none."""
    version = ipaddress.ip_address(like).version
    for entry in psutil.net_if_addrs().get(interface, []):
        try:
            address = ipaddress.ip_address(entry.address.partition("%")[0])
        except ValueError:
            continue
        if address.version == version:
            return str(address)
    return ""


def own_address(towards: str) -> str:
    """The address of this machine by which ``towards`` is reached. Raises ConfigError."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(towards, PROBE_PORT, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)
            address: str = probe.getsockname()[0]
    except OSError as error:
        raise ConfigError(
            f"{towards} cannot be resolved or reached ({error.strerror}); set cluster.address to an address of this "
            "node that all hosts reach"
        ) from error
    return address
