"""The parity gate itself: it passes a right engine and stops each wrong one, at every precision."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cells import Cell, plan
from bench.launch import Launcher
from bench.parity import ONE_SIDED
from bench.record import Parity
from results.settings import Config
from tests.conftest import CPU_ONLY, worst

WRONG = ("unreduced", "summed", "first_rank_only", "last_micro_batch", "stale")


@pytest.fixture
def parity_of(
    make_config: Callable[..., Config], run_check: Callable[[Cell], list[dict[str, Any]]]
) -> Callable[..., dict[str, Any]]:
    def parity(fault: str, precision: str) -> dict[str, Any]:
        config = make_config(
            gpus=2,
            optimizer="sgd",
            lr=0.05,
            accumulate=2,
            precision=precision,
            batch_size=16,
            measure={"parity_steps": 4, "memory": False},
        )
        config.engine = {"name": "wrong", "package": "tests.wrong_engine", "fault": fault}
        result: dict[str, Any] = run_check(plan([config], CPU_ONLY, cores=2)[0])[0]["parity"]
        return result

    return parity


@pytest.mark.parametrize("precision", ["fp32", "amp_bf16", "bf16"])
def test_a_right_engine_passes_and_every_wrong_one_is_far_beyond_the_tolerance(
    parity_of: Callable[..., dict[str, Any]], precision: str
) -> None:
    def error(fault: str) -> tuple[float, float]:
        parity = parity_of(fault, precision)
        return worst(parity["loss_error"], parity["weights_error"]), parity["tolerance"]

    right, tolerance = error("none")
    assert right < tolerance / 2
    wrong = {fault: error(fault)[0] for fault in WRONG}
    assert min(wrong.values()) > 1.2 * max(tolerance, ONE_SIDED), wrong


def test_a_wrong_engine_fails_however_finely_the_model_can_be_judged(
    make_config: Callable[..., Config], launcher: Launcher, scratch: Path
) -> None:
    """Where an engine misses the tolerance, it is widened to what one process reaches from a nudge of its weights."""
    cell = plan([make_config(gpus=2, optimizer="adam")], CPU_ONLY, cores=2)[0]
    assert launcher.launch(cell.job("reference", scratch)).status == "ok"
    resolution = launcher.launch(cell.job("resolution", scratch)).ranks[0]["resolution"]
    assert 0 < resolution < 1e-3
    missed = Parity(3, loss_error=0.0, weights_error=0.01, tolerance=1e-3, losses=[], reference_losses=[])
    assert not missed.widened(resolution).passed
    assert missed.widened(0.02).passed
    assert not dataclasses.replace(missed, weights_error=0.3).widened(0.5).passed
    assert not missed.widened(math.nan).passed
