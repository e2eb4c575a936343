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


HEADER_BYTES = 66
"""Of each packet: Ethernet, IP, and TCP with timestamps. How data are cut into packets is the kernel's affair."""


def loopback_bytes() -> int:
    """Payload that this machine has sent to itself."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            sent, packets = map(int, counters.split()[8:10])
            return sent - HEADER_BYTES * packets
    pytest.skip("no loopback counters here")


@pytest.mark.parametrize("gpus", [2, 4])
@pytest.mark.parametrize(("stage", "volume"), [(0, 2), (1, 2), (2, 2), (3, 3)])
def test_bytes_on_the_wire_are_the_least_that_the_stage_needs(
    stage: int, volume: int, gpus: int, make_cell: MakeCell, launcher: Launcher, timing_job: Callable[..., Any]
) -> None:
    """Stages 0 to 2 send 2f·P·4 bytes per rank and step, stage 3 sends 3f·P·4; f = (N-1)/N."""
    mlp = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 2, "width": 1024, "bias": False}
    cell = make_cell(engine="native", stage=stage, gpus=gpus, workload=mlp, batch_size=1)

    def sent(steps: int) -> int:
        before = loopback_bytes()
        result = launcher.launch(timing_job(cell, steps=steps))
        assert result.status == "ok", result
        return loopback_bytes() - before

    per_step = (sent(43) - sent(3)) / 40 / gpus
    least = volume * (gpus - 1) / gpus * PARAMETERS_BYTES
    assert per_step == pytest.approx(least, rel=0.01)
