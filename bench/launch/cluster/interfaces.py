"""The network interface that an address of this machine belongs to."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

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


def without_address(interface: str) -> str:
    """That an interface has no address here, and which have one."""
    valid = [name for name in psutil.net_if_addrs() if address_of(name, like="127.0.0.1")]
    return f"cluster.interface={interface} has no address on this host; valid: {', '.join(valid)}"


def own_address(towards: Sequence[str], hosts: int) -> str:
    """The address of this machine by which the first of ``towards`` is reached that is not this machine.

    ``hosts``: that are to reach it. Of one host, it may be a loopback address. Raises ConfigError.
    """
    address, failure = "", ConfigError("no host is named")
    for name in towards:
        try:
            address = address_towards(name)
        except ConfigError as error:
            failure = error
            continue
        if not is_loopback(address):
            return address
    if not address:
        raise failure
    if hosts > 1:
        reject_loopback(address)
    return address


def address_towards(name: str) -> str:
    """The address of this machine by which ``name`` is reached. Raises ConfigError."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(name, PROBE_PORT, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)
            address: str = probe.getsockname()[0]
    except OSError as error:
        raise ConfigError(
            f"{name} cannot be resolved or reached ({error.strerror}); set cluster.address to an address of this node "
            "that all hosts reach"
        ) from error
    return address


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def is_this_machine(address: str) -> bool:
    """Whether this is a loopback address itself, rather than the name of a node that resolves to one."""
    try:
        return address == "localhost" or is_loopback(address)
    except ValueError:
        return False


def reject_loopback(name: str) -> None:
    """Raises ConfigError for a name or address of this machine that no other machine reaches."""
    try:
        address = str(socket.getaddrinfo(name, PROBE_PORT, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:  # who listens there reports it
        return
    if is_loopback(address):
        raise ConfigError(
            f"the coordinator's address {name} is {address} on this node, which no other node reaches; set "
            "cluster.address to an address of this node that all hosts reach, or to 127.0.0.1 if all are on this one"
        )
