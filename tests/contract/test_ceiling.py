"""The ceiling on real ranks: a model of large matrix products comes near it, and not beyond."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.launch.launcher import Launcher
from bench.plan.cell import Cell
from bench.plan.jobs import Jobs
from bench.worker.batches import workload
from bench.worker.model import flops_per_sample
from results.launches import Launch
from tests.conftest import MakeCell
from tests.undisturbed import undisturbed

pytestmark = pytest.mark.alone

WIDTH, DEPTH, BATCH = 1024, 3, 256
WIDE = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": DEPTH, "width": WIDTH, "bias": False}


def test_a_model_of_large_products_comes_near_the_ceiling_and_not_beyond(
    launcher: Launcher, make_cell: MakeCell, timing_job: Callable[..., Any]
) -> None:
    cell: Cell = make_cell(engine="native", workload=WIDE, gpus=2, batch_size=BATCH, optimizer="sgd", steps=4)
    work = workload(timing_job(cell).workload)
    forward = 2 * DEPTH * WIDTH**2
    flops, _ = flops_per_sample(work, work.build())
    assert flops == 3 * forward - 2 * WIDTH**2  # nothing needs the gradient of the first layer's input

    def utilization() -> float:
        """By the best of both, taken by turns: others may be at work."""
        peak, step_s = 0.0, math.inf
        for _ in range(2):
            ranks = launcher.launch(Jobs(cell, Path()).ceiling()).ranks
            ceilings = [rank.ceiling for rank in ranks]
            assert ceilings[0] == ceilings[1] and ceilings[0].dtype == "float32"
            peak = max(peak, ceilings[0].flops_per_s)
            timed = launcher.launch(timing_job(cell)).ranks
            samples = [rank.samples for rank in timed]
            step_s = min(step_s, *Launch(0, "", {}, samples).step_times_s())
        return flops * BATCH / step_s / peak

    def claim(mfu: float) -> None:
        assert 0.1 < mfu < 1.15

    undisturbed(utilization, claim)
