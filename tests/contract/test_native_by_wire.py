"""What goes by the native engine's own thread is what would go without it, bit by bit, and a dead peer is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.launch.launcher import Launcher
from bench.launch.local import LocalLauncher
from tests.conftest import MakeCell, assert_parity, launched

QUICK = {"parity_steps": 4, "memory": False}
GPT = {"name": "gpt", "factory": "workloads.gpt:GPT", "size": "tiny", "sequence_length": 16, "tie": True}


@pytest.fixture(scope="module")
def by_wire() -> Iterator[Launcher]:
    """Its ranks' native engine sends everything, however small, by the wire."""
    with LocalLauncher(("torch._dynamo", "torch.optim", "tests.by_wire")) as launcher:
        yield launcher


PRECISIONS = ("fp32", "bf16_master", "amp_fp16")
PLACES = ((1, 2), (1, 3), (2, 4), (2, 5), (3, 2), (3, 3))
"""Stage and ranks."""
ONCE = ((1, 3, "fp32"), (2, 4, "amp_fp16"), (3, 3, "bf16_master"))


def places_and_precisions() -> Iterator[Any]:
    """Each stage and each precision once; the other combinations are exhaustive."""
    for stage, gpus in PLACES:
        for precision in PRECISIONS:
            marks = () if (stage, gpus, precision) in ONCE else pytest.mark.exhaustive
            yield pytest.param(stage, gpus, precision, marks=marks)


@pytest.mark.parametrize(("stage", "gpus", "precision"), places_and_precisions())
def test_weights_are_the_same_bits_by_the_wire(
    stage: int,
    gpus: int,
    precision: str,
    make_cell: MakeCell,
    launcher: Launcher,
    by_wire: Launcher,
    scratch: Path,
) -> None:
    settings: dict[str, Any] = {"bucket_mb": None if stage == 3 else 0.1, "clip_norm": 1.0, "accumulate": 2}
    cell = make_cell(
        engine="native", stage=stage, gpus=gpus, precision=precision, workload=GPT, measure=QUICK, **settings
    )
    here, there = (launched(server, cell, "check", scratch).ranks for server in (launcher, by_wire))
    assert_parity(there)
    assert there[0].parity.weights_digest == here[0].parity.weights_digest


def test_a_peer_that_dies_ends_the_launch_with_its_reason(
    make_cell: MakeCell, by_wire: Launcher, timing_job: Callable[..., Any]
) -> None:
    faulty = {"name": "faulty", "factory": "tests.faults:Faulty", "how": "kill", "rank": 1}
    result = by_wire.launch(timing_job(make_cell(engine="native", stage=2, workload=faulty, gpus=3), timeout_s=60.0))
    assert (result.status, result.reason) == ("failed", "rank 1: killed by signal 9 (SIGKILL)")
    assert "p2p_thread.py" in result.ends[0].last_output
