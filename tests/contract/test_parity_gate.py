"""The parity gate: it passes a right engine, stops each wrong one, and says what cannot be judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.plan.cell import Cell
from bench.plan.resolve import plan
from bench.worker.parity import ONE_SIDED
from results.settings import Config
from tests.conftest import CPU_ONLY, Judged, MakeCell, RunCheck

WRONG = ("unreduced", "summed", "first_rank_only", "last_micro_batch", "stale")
WRONG_IN_PART = (
    *("biases", "one_tensor", "bucket_twice", "bucket_lost", "stale_rank"),
    *("shard_unreduced", "shard_stale", "shard_shifted", "shard_scaled"),
)
GPT = {"name": "gpt", "factory": "workloads.gpt:GPT", "size": "tiny", "sequence_length": 16, "tie": True}
RESIDUAL = {"name": "residual", "factory": "tests.models:Odd", "kind": "residual"}
DRAWS = ("dropout", "attention", "noise", "layer_drop", "own_generator", "numpy", "recomputed")


def wrong(make_config: Callable[..., Config], fault: str, **settings: Any) -> Cell:
    config = make_config(gpus=2, accumulate=2, **settings)
    config.engine = {"name": "wrong", "package": "tests.wrong_engine", "fault": fault}
    return plan([config], CPU_ONLY, cores=2)[0]


@pytest.mark.parametrize("precision", ["fp32", "amp_bf16", pytest.param("bf16", marks=pytest.mark.exhaustive)])
def test_a_right_engine_passes_and_every_wrong_one_is_far_beyond_the_tolerance(
    make_config: Callable[..., Config], run_check: RunCheck, precision: str
) -> None:
    def error(fault: str) -> tuple[float, float]:
        settings = {"optimizer": "sgd", "lr": 0.05, "batch_size": 16, "measure": {"parity_steps": 4, "memory": False}}
        parity = run_check(wrong(make_config, fault, precision=precision, **settings))[0].parity
        return parity.error, parity.tolerance

    right, tolerance = error("none")
    assert right < tolerance / 2
    errors = {fault: error(fault)[0] for fault in WRONG}
    assert min(errors.values()) > 1.2 * max(tolerance, ONE_SIDED), errors


@pytest.mark.parametrize(
    ("workload", "precision"),
    [
        pytest.param(RESIDUAL, "fp32", id="residual-fp32"),
        pytest.param(GPT, "amp_bf16", id="gpt-amp_bf16"),
        pytest.param(RESIDUAL, "amp_bf16", id="residual-amp_bf16", marks=pytest.mark.exhaustive),
        pytest.param(GPT, "fp32", id="gpt-fp32", marks=pytest.mark.exhaustive),
    ],
)
def test_an_engine_that_is_wrong_in_a_few_tensors_fails_and_one_of_them_is_named(
    make_config: Callable[..., Config], judged: Judged, workload: dict[str, Any], precision: str
) -> None:
    """Adam's update does not depend on the scale of a gradient, so a wrong scale is looked for with SGD."""

    def parity(fault: str) -> Any:
        sgd = {"optimizer": "sgd", "lr": 0.1} if fault == "shard_scaled" else {}
        return judged(wrong(make_config, fault, workload=workload, precision=precision, **sgd))

    right = parity("none")
    assert right.passed and not right.widened
    for fault in WRONG_IN_PART:
        outcome = parity(fault)
        assert outcome.failed, (fault, outcome.worst, outcome.unjudged)
        named = outcome.ranks_differ.tensor if outcome.ranks_differ else outcome.worst.name
        assert named in outcome.failed
        if fault == "biases":
            assert named.endswith("bias")
        if fault == "one_tensor":
            assert named == list(outcome.tensor_errors)[len(outcome.tensor_errors) // 2]
        if fault == "stale_rank":
            assert "rank 1 has another" in outcome.failed


@pytest.mark.parametrize("gpus", [2, 3])
def test_a_bias_before_batch_norm_has_no_gradient_and_is_named_instead_of_failed(
    judged: Judged, make_cell: MakeCell, gpus: int
) -> None:
    workload = RESIDUAL | {"kind": "bias_before_norm"}
    parity = judged(make_cell(engine="torch", workload=workload, gpus=gpus))
    assert parity.passed, (parity.failed, parity.unjudged)
    if parity.resolution is not None:
        assert parity.zero_gradients == ["0.bias"]


@pytest.mark.parametrize(
    ("kind", "lr", "words"),
    [
        ("diverging", 1e-3, "the single process itself has a loss that is not finite (nan in step 2 of 3)"),
        ("twice", 1e-30, "the single process updated no weight in 3 steps"),
        ("unseeded", 1e-3, "the single process is not repeatable"),
    ],
)
def test_a_reference_that_proves_nothing_says_why(
    judged: Judged, make_cell: MakeCell, kind: str, lr: float, words: str
) -> None:
    parity = judged(make_cell(workload=RESIDUAL | {"kind": kind}, gpus=2, lr=lr))
    assert words in parity.unjudged and not parity.failed and not parity.passed


def draws_and_engines() -> Iterator[Any]:
    """A draw is the workload's, not the engine's: all of them with one engine, and one of them with each."""
    for draws in DRAWS:
        for engine in ("native", "torch", "deepspeed"):
            often = engine == "native" or draws == "dropout"
            yield pytest.param(draws, engine, marks=() if often else pytest.mark.exhaustive)


@pytest.mark.parametrize(("draws", "engine"), draws_and_engines())
def test_random_numbers_in_forward_are_those_of_a_single_process(
    draws: str, engine: str, make_cell: MakeCell, run_check: RunCheck
) -> None:
    workload = RESIDUAL | {"kind": "random", "draws": draws}
    for gpus, stage, accumulate in ((1, 0, 1), (2, 2, 2), (3, 3, 1)):
        cell = make_cell(
            engine=engine, stage=stage, gpus=gpus, accumulate=accumulate, workload=workload, optimizer="sgd", lr=0.1
        )
        parity = run_check(cell)[0].parity
        assert parity.loss_error < 5e-6 and parity.weights_error < 5e-6, (gpus, stage, accumulate)
