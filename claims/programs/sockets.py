"""What processes sent each other, by the kernel's own count of every TCP connection. Needs no torch."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from bench.measure.communication import interface_bytes

RECEIVED, SENT, SENT_AGAIN = 128, 200, interface_bytes.BYTES_RETRANS
"""Where ``tcpi_bytes_received``, ``tcpi_bytes_sent`` and ``tcpi_bytes_retrans``, of 8 bytes, stand in ``tcp_info``."""

Counts = dict[str, tuple[int, int]]
"""Payload sent and received, each byte once, by the two ends of a connection: own, peer's."""


def counts() -> Counts:
    """Of all open connections of this process. Raises RuntimeError where the kernel does not count."""
    by_connection: Counts = {}
    for own, peer, info in interface_bytes.connections(SENT_AGAIN + 8):
        if len(info) < SENT_AGAIN + 8:
            raise RuntimeError("this kernel does not tell what a connection sent (Linux 4.19 and later do)")
        received, sent, again = (struct.unpack_from("Q", info, at)[0] for at in (RECEIVED, SENT, SENT_AGAIN))
        by_connection[f"{_end(own)} {_end(peer)}"] = (sent - again, received)
    return by_connection


def _end(address: Any) -> str:
    return f"{address[0]}:{address[1]}"


def since(before: Counts, after: Counts) -> Counts:
    """What was sent and received in between; a connection that was made meanwhile counts whole."""
    gained = {}
    for ends, (sent, received) in after.items():
        had = before.get(ends, (0, 0))
        gained[ends] = (sent - had[0], received - had[1])
    return gained


def matrix(by_process: list[dict[str, list[int]]], steps: int) -> list[list[float]]:
    """Bytes a step from each process (row) to each other (column), from what each counted of its own connections.

    A process that counted nothing (its lists are zeros) is seen at the other end.
    """
    owner = {ends.split()[0]: process for process, connections in enumerate(by_process) for ends in connections}
    sent = [[0.0] * len(by_process) for _ in by_process]
    got = [[0.0] * len(by_process) for _ in by_process]
    for process, connections in enumerate(by_process):
        for ends, (out, into) in connections.items():
            peer = owner.get(ends.split()[1])
            if peer is not None:
                sent[process][peer] += out / steps
                got[peer][process] += into / steps
    return [[max(pair) for pair in zip(*rows, strict=True)] for rows in zip(sent, got, strict=True)]


def busiest(sent: list[list[float]], hosts: Iterable[int]) -> float:
    """What the busiest host's link carries in its busier direction; ``hosts`` are those of the processes."""
    of = list(hosts)
    across = [(of[a], of[b], sent[a][b]) for a in range(len(of)) for b in range(len(of)) if of[a] != of[b]]
    return max(max(sum(n for a, _, n in across if a == host), sum(n for _, b, n in across if b == host)) for host in of)
