"""The lab's switch where links have a delay: moves packets between TUN devices, each at its time. Runs by itself.

    python -I -S relay.py PARENT_PID DELAY_S BITS_PER_S FD [FD ...]      (0 bits: unbounded)

Descriptor number i is the device of host i, whose address ends in i + 1. A packet is handed over ``DELAY_S`` after it
came, or when the packets before it have been received at the rate, whichever is later; none is dropped.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections import deque

LARGEST_PACKET_BYTES = 65536
AT_ONCE = 64
"""Packets taken from one device before the others have their turn."""


def relay(devices: list[int], delay_s: float, bits_per_s: float) -> None:
    """Never returns."""
    waiting: list[deque[tuple[float, bytes]]] = [deque() for _ in devices]
    free = [0.0] * len(devices)
    second_per_byte = 8 / bits_per_s if bits_per_s else 0.0
    while True:
        now = time.monotonic()
        for device, queue in zip(devices, waiting, strict=True):
            while queue and queue[0][0] <= now:
                with contextlib.suppress(OSError):  # the host is going down
                    os.write(device, queue.popleft()[1])
        next_due = min((queue[0][0] for queue in waiting if queue), default=None)
        timeout = None if next_due is None else max(0.0, next_due - time.monotonic())
        for device in select.select(devices, [], [], timeout)[0]:
            for _ in range(AT_ONCE):
                try:
                    packet = os.read(device, LARGEST_PACKET_BYTES)
                except OSError:
                    break
                host = host_of(packet)
                if 0 <= host < len(devices):
                    due = max(time.monotonic() + delay_s, free[host])
                    free[host] = due + len(packet) * second_per_byte
                    waiting[host].append((due, packet))


def host_of(packet: bytes) -> int:
    """The destination host of an IPv4 packet; -1 for others."""
    return packet[18] * 256 + packet[19] - 1 if len(packet) >= 20 and packet[0] >> 4 == 4 else -1


def main(arguments: list[str]) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; isolated, so without bench.launch.prctl
    if os.getppid() == int(arguments[0]):
        relay([int(fd) for fd in arguments[3:]], float(arguments[1]), float(arguments[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
