"""Bytes on the wire: what the kernel counted on the interface by which gloo's ranks talk.

    python's view       a collective of S bytes
    the library's       messages and their order: gloo's reduce-scatter sends twice what it must
    the wire            those messages in packets, and once more what TCP takes for lost

Counted are bytes sent, less the headers of their packets and less segments that were sent again (taken to be full):
what remains is what the library sent. Whatever else uses the interface meanwhile is counted too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from bench.network import INTERFACE, Link

NET = Path("/proc/self/net")
SIOCGIFMTU, SIOCGIFHWADDR, ARPHRD_NONE = 0x8921, 0x8927, 0xFFFE
HEADER_BYTES = 52
"""Of each packet: IP, and TCP with timestamps. How data are cut into packets is the kernel's affair."""
ETHERNET_BYTES = 14
"""More, and no part of the MTU, on any interface that has Ethernet's header: loopback too, TUN not."""


@dataclass(frozen=True)
class Interface:
    """An interface in the network namespace of this process."""

    name: str

    def sent_bytes(self) -> float | None:
        """Payload sent since the machine, or the namespace, began, each byte once; None where it is not told."""
        with contextlib.suppress(OSError, ValueError):
            sent, packets = sent_by(self.name, (NET / "dev").read_text())
            again = retransmitted((NET / "snmp").read_text())
            headers = HEADER_BYTES + (ETHERNET_BYTES if has_ethernet(self.name) else 0)
            return float(sent - headers * packets - (largest_packet_bytes(self.name) - HEADER_BYTES) * again)
        return None


def interface_of(rank: int, ranks: int, link: Link | None) -> Interface | None:
    """What ``rank`` is to read, so that every interface of a launch is read once.

    In the network lab that is each host's link, by the first rank there; else loopback, by rank 0.
    """
    if link is None:
        return Interface(os.environ.get("GLOO_SOCKET_IFNAME", "lo")) if rank == 0 else None
    is_first = rank == 0 or link.host_of(rank, ranks) != link.host_of(rank - 1, ranks)
    return Interface(INTERFACE) if is_first else None


def sent_by(name: str, text: str) -> tuple[int, int]:
    """Bytes and packets that an interface has sent, from the text of /proc/net/dev. Raises ValueError without it."""
    for line in text.splitlines():
        title, _, counters = line.partition(":")
        if title.strip() == name:
            sent, packets = counters.split()[8:10]
            return int(sent), int(packets)
    raise ValueError(name)


def largest_packet_bytes(name: str) -> int:
    """The MTU of an interface."""
    mtu: int = struct.unpack("16si12x", _asked(SIOCGIFMTU, name))[1]
    return mtu


def has_ethernet(name: str) -> bool:
    """Whether packets on an interface begin with Ethernet's header, which its counters include then."""
    family: int = struct.unpack("16sH14x", _asked(SIOCGIFHWADDR, name))[1]
    return family != ARPHRD_NONE


def _asked(question: int, name: str) -> bytes:
    """A socket's answer on an interface: sysfs would show the namespace in which it was mounted."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return fcntl.ioctl(any_socket, question, struct.pack("16s16x", name.encode()))


def retransmitted(text: str) -> int:
    """Segments that TCP sent again, from the text of /proc/net/snmp."""
    names, values = (line.split() for line in text.splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])
