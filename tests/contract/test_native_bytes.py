"""The native engine sends what it must and no more, by the kernel's own count of the loopback interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.launch.launcher import Launcher
from results.host_settings import Network
from tests.conftest import MakeCell, wire_bytes
from tests.integration.test_network import no_lab
from tests.undisturbed import counted_undisturbed, undisturbed

pytestmark = pytest.mark.alone

MIB = 1 << 20
PARAMETERS_BYTES = 8 * MIB
"""Two layers of 1024 x 1024 in fp32, without biases."""
MATRICES = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 2, "width": 1024, "bias": False}
STEPS = 40


@pytest.mark.parametrize("gpus", [2, 4])
@pytest.mark.parametrize(("stage", "volume"), [(0, 2), (1, 2), (2, 2), (3, 3)])
def test_bytes_on_the_wire_are_the_least_that_the_stage_needs(
    stage: int, volume: int, gpus: int, make_cell: MakeCell, launcher: Launcher, timing_job: Callable[..., Any]
) -> None:
    """Stages 0 to 2 send 2f·P·4 bytes per rank and step, stage 3 sends 3f·P·4; f = (N-1)/N.

    Whatever else this machine sends to itself is counted too, so a disturbed count is taken again.
    """
    cell = make_cell(engine="native", stage=stage, gpus=gpus, workload=MATRICES, batch_size=1, steps=STEPS)
    least = volume * (gpus - 1) / gpus * PARAMETERS_BYTES

    def sent() -> float:
        return wire_bytes(launcher.launch(timing_job(cell)), STEPS) / least

    counted_undisturbed(sent, 1.0)


@pytest.mark.skipif(no_lab is not None, reason=no_lab or "")
@pytest.mark.parametrize(("hosts", "share"), [(4, 1.0), (2, 4 / 6)])
def test_in_the_lab_what_leaves_a_host_is_counted(
    hosts: int, share: float, make_cell: MakeCell, launcher: Launcher, timing_job: Callable[..., Any]
) -> None:
    """Of four ranks on two hosts each sends to two of three peers by the link; to the other by the host's loopback."""
    lab = Network("lab", hosts=hosts)
    cell = make_cell(
        engine="native", stage=1, gpus=4, workload=MATRICES, batch_size=1, steps=STEPS, bucket_mb=25, network=lab
    )
    least = 2 * 3 / 4 * PARAMETERS_BYTES * share

    def claim(sent: float) -> None:
        assert sent == pytest.approx(least, rel=0.02)

    undisturbed(lambda: wire_bytes(launcher.launch(timing_job(cell)), STEPS), claim)
