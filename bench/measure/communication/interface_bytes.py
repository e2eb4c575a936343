"""Bytes on the wire: what the kernel counted on the interface by which gloo's ranks talk.

    python's view       a collective of S bytes
    the library's       messages and their order: gloo's reduce-scatter sends twice what it must
    the wire            those messages in packets, and once more what TCP takes for lost

Counted are bytes sent, less the headers of their packets and less what the ranks' own sockets sent again: what remains
is what the library sent. Whatever else uses the interface meanwhile is counted too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.network.link import INTERFACE, Link
from bench.placement import Placement

NET = Path("/proc/self/net")
SIOCGIFHWADDR, ARPHRD_NONE = 0x8927, 0xFFFE
HEADER_BYTES = 52
"""Of each packet: IP, and TCP with timestamps. How data are cut into packets is the kernel's affair."""
ETHERNET_BYTES = 14
"""More on any interface that has Ethernet's header: loopback too, TUN not."""
LOOPBACK = "lo"
BYTES_RETRANS = 208
"""Where ``tcpi_bytes_retrans``, of 8 bytes, stands in Linux's ``tcp_info`` (4.19 and later)."""


@dataclass(frozen=True)
class Interface:
    """An interface in the network namespace of this process, as one of its ranks sees it."""

    name: str
    reads: bool = True
    """Whether this rank reads the interface's counters; there is one set for all ranks here."""

    def sent_bytes(self) -> float:
        """This rank's addend of the payload sent since the ranks began, each byte once.

        The one that reads the counters, which began with the machine or the namespace, takes them; each takes off what
        its own sockets sent again. Raises OSError where counters cannot be read, ValueError where the kernel lists none
        for the interface.
        """
        sent, packets = sent_by(self.name, (NET / "dev").read_text())
        headers = HEADER_BYTES + (ETHERNET_BYTES if has_ethernet(self.name) else 0)
        counted = sent - headers * packets if self.reads else 0
        return float(counted - sent_again(on_loopback=self.name == LOOPBACK))


def interface_of(rank: int, ranks: int, link: Link | None, placement: Placement) -> Interface:
    """The interface of ``rank``, set to be read by one rank for each: the first on each host.

    With network emulation that is the emulated host's link, else the interface to the other hosts; else loopback, by
    which processes of a machine communicate whatever address they use.
    """
    if link is None:
        return Interface(placement.interface or LOOPBACK, reads=placement.leads_host)
    return Interface(INTERFACE, reads=rank == 0 or link.host_of(rank, ranks) != link.host_of(rank - 1, ranks))


def sent_by(name: str, text: str) -> tuple[int, int]:
    """Bytes and packets that an interface has sent, from the text of /proc/net/dev. Raises ValueError without it."""
    for line in text.splitlines():
        title, _, counters = line.partition(":")
        if title.strip() == name:
            sent, packets = counters.split()[8:10]
            return int(sent), int(packets)
    raise ValueError(f"no counters of the interface {name}")


def has_ethernet(name: str) -> bool:
    """Whether packets on an interface begin with Ethernet's header, which its counters include then."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:  # sysfs shows another namespace's
        answer = fcntl.ioctl(any_socket, SIOCGIFHWADDR, struct.pack("16s16x", name.encode()))
    family: int = struct.unpack("16sH14x", answer)[1]
    return family != ARPHRD_NONE


def sent_again(*, on_loopback: bool) -> int:
    """Payload that TCP sent again on the open connections of this process, to its own address or to others."""
    sockets = connections(BYTES_RETRANS + 8)
    return sum(retransmitted(info) for own, peer, info in sockets if (own[0] == peer[0]) == on_loopback)


def connections(info_bytes: int) -> list[tuple[Any, Any, bytes]]:
    """The open TCP connections of this process: own address, the peer's, and up to ``info_bytes`` of ``tcp_info``."""
    sockets = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile, or not connected
            if not os.readlink(path).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(path.name))) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
                    own, peer = connection.getsockname(), connection.getpeername()
                    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, info_bytes)
                    sockets.append((own, peer, info))
    return sockets


def retransmitted(tcp_info: bytes) -> int:
    """Bytes that a connection sent again; 0 where the kernel does not count them."""
    has_count = len(tcp_info) >= BYTES_RETRANS + 8
    again: int = struct.unpack_from("Q", tcp_info, BYTES_RETRANS)[0] if has_count else 0
    return again
