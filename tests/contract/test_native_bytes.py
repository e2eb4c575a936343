"""The native engine sends what it must and no more, by the kernel's own count of the loopback interface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.launch import Launcher
from tests.conftest import MakeCell

MIB = 1 << 20
PARAMETERS_BYTES = 8 * MIB
"""Two layers of 1024 x 1024 in fp32, without biases."""


ETHERNET_BYTES = 14
HEADER_BYTES = 66
"""Of each packet: Ethernet, IP, and TCP with timestamps. How data are cut into packets is the kernel's affair."""


def loopback_bytes() -> int:
    """Payload that this machine has sent to itself, each byte once.

    Where a receiver is late to run, TCP takes what it did not acknowledge for lost and sends it again, though nothing
    is lost here: up to 3 % on busy cores. Those segments are taken to be full.
    """
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            sent, packets = map(int, counters.split()[8:10])
            segment_bytes = int(Path("/sys/class/net/lo/mtu").read_text()) - HEADER_BYTES + ETHERNET_BYTES
            return sent - HEADER_BYTES * packets - segment_bytes * retransmitted_segments()
    pytest.skip("no loopback counters here")


def retransmitted_segments() -> int:
    names, values = (
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")
    )
    return int(values[names.index("RetransSegs")])


@pytest.mark.parametrize("gpus", [2, 4])
@pytest.mark.parametrize(("stage", "volume"), [(0, 2), (1, 2), (2, 2), (3, 3)])
def test_bytes_on_the_wire_are_the_least_that_the_stage_needs(
    stage: int, volume: int, gpus: int, make_cell: MakeCell, launcher: Launcher, timing_job: Callable[..., Any]
) -> None:
    """Stages 0 to 2 send 2f·P·4 bytes per rank and step, stage 3 sends 3f·P·4; f = (N-1)/N.

    Whatever else this machine sends to itself is counted too, so a disturbed count is taken again.
    """
    mlp = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 2, "width": 1024, "bias": False}
    cell = make_cell(engine="native", stage=stage, gpus=gpus, workload=mlp, batch_size=1)

    def sent(steps: int) -> int:
        before = loopback_bytes()
        result = launcher.launch(timing_job(cell, steps=steps))
        assert result.status == "ok", result
        return loopback_bytes() - before

    least = volume * (gpus - 1) / gpus * PARAMETERS_BYTES
    counts = []
    while len(counts) < 4:
        counts.append((sent(43) - sent(3)) / 40 / gpus / least)
        if abs(counts[-1] - 1) <= 0.01:
            return
    pytest.fail(f"sent over least, each time counted: {counts}")
