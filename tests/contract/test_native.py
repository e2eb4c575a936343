"""The native engine beyond the contract of all: exact numbers, exact bytes, models as people write them.

Errors are over all parameters, since the bound is below any tolerance: the error of a single tensor whose gradient is
rounding alone (the bias of a key in attention) has no such bound. ``test_parity_gate`` judges by tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.launch.launcher import Launcher
from bench.plan.jobs import Jobs
from results.parity import Parity
from tests.conftest import MakeCell, RunCheck
from tests.models import MODELS
from tests.models_elsewhere import ELSEWHERE

SGD = {"optimizer": "sgd", "lr": 0.05}


def odd(kind: str, **options: Any) -> dict[str, Any]:
    return {"name": kind, "factory": "tests.models:Odd", "kind": kind, **options}


@pytest.fixture
def parity(make_cell: MakeCell, run_check: RunCheck) -> Callable[..., Parity]:
    def run(**settings: Any) -> Parity:
        settings = {"engine": "native", "measure": {"parity_steps": 4, "memory": False}} | settings
        result = run_check(make_cell(**settings))[0].parity
        assert result
        return result

    return run


def kinds_and_stages() -> Iterator[Any]:
    """Each kind on two ranks or on three; on both, and at all stages, in make exhaustive."""
    for at, kind in enumerate([*MODELS, *ELSEWHERE]):
        yield pytest.param(kind, ({2: (0, 3)}, {3: (2, 3)})[at % 2], id=kind)
        yield pytest.param(kind, dict.fromkeys((2, 3), range(4)), id=f"{kind}-all", marks=pytest.mark.exhaustive)


@pytest.mark.parametrize(("kind", "stages"), kinds_and_stages())
def test_models_as_people_write_them_train_alike_at_every_stage(
    kind: str, stages: dict[int, Sequence[int]], parity: Callable[..., Parity]
) -> None:
    """``stages``: by number of ranks."""
    for gpus, chosen in stages.items():
        parities = {stage: parity(workload=odd(kind), stage=stage, gpus=gpus, **SGD) for stage in chosen}
        assert all(p.weights_error < 1e-5 for p in parities.values())
        equal = {stage: p.weights_digest for stage, p in parities.items() if gpus == 2 or stage > 0}
        assert len(set(equal.values())) == 1, equal


@pytest.mark.parametrize("kind", ["structured", "frozen_first", "adapted"])
def test_a_loss_of_the_gradient_by_the_inputs_trains_alike_also_with_frozen_weights_in_a_unit(
    kind: str, parity: Callable[..., Parity]
) -> None:
    """The inputs are a leaf, which goes straight into a unit; ``autograd.grad`` keeps the graph for backward."""
    parities = [parity(workload=odd(kind, forces=True), stage=stage, gpus=2, **SGD) for stage in (0, 3)]
    assert all(p.weights_error < 1e-5 for p in parities)
    assert len({p.weights_digest for p in parities}) == 1


@pytest.mark.parametrize(
    ("gpus", "optimizer"),
    [
        (2, "adam"),
        pytest.param(3, "sgd", marks=pytest.mark.exhaustive),
        *(pytest.param(2, name, marks=pytest.mark.exhaustive) for name in ("sgd", "adamw", "rmsprop")),
        *(pytest.param(3, name, marks=pytest.mark.exhaustive) for name in ("adam", "adamw", "rmsprop")),
    ],
)
def test_weights_are_equal_bit_by_bit_at_any_stage_bucket_size_and_overlap(
    optimizer: str, gpus: int, parity: Callable[..., Parity]
) -> None:
    """But at stage 0 on three ranks: gloo's ring adds in an order that depends on the bucket, not on overlap."""
    digests = {
        (stage, bucket_mb, overlap): parity(
            stage=stage, bucket_mb=bucket_mb, overlap=overlap, gpus=gpus, optimizer=optimizer, workload="gpt"
        ).weights_digest
        for stage in (0, 1, 2, 3)
        for bucket_mb, overlap in ((None, True), (0.05, True), (0.2, False), (0.2, True))
    }
    assert digests[0, 0.2, True] == digests[0, 0.2, False]
    exact = {setting: digest for setting, digest in digests.items() if gpus == 2 or setting[0] > 0}
    assert len(set(exact.values())) == 1, digests


@pytest.mark.parametrize("gpus", [1, 3, *(pytest.param(ranks, marks=pytest.mark.exhaustive) for ranks in (2, 4, 5, 8))])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_fp64_training_equals_a_single_process_to_the_last_digits(
    gpus: int, stage: int, parity: Callable[..., Parity]
) -> None:
    outcome = parity(
        workload=odd("double"), stage=stage, gpus=gpus, measure={"parity_steps": 50, "memory": False}, **SGD
    )
    assert outcome.weights_error <= 1e-13 and outcome.loss_error <= 1e-13


@pytest.mark.parametrize("stage", [0, *(pytest.param(stage, marks=pytest.mark.exhaustive) for stage in (1, 2)), 3])
def test_fp32_training_stays_with_a_single_process_for_50_steps(stage: int, parity: Callable[..., Parity]) -> None:
    for optimizer, lr in (("sgd", 0.05), ("adamw", 1e-3)):
        outcome = parity(
            stage=stage,
            gpus=3,
            optimizer=optimizer,
            lr=lr,
            workload=odd("structured"),
            measure={"parity_steps": 50, "memory": False},
        )
        assert outcome.weights_error <= 1e-5 and outcome.loss_error <= 1e-5


def test_accumulated_micro_batches_and_clipping_keep_stages_equal(parity: Callable[..., Parity]) -> None:
    for settings in ({"accumulate": 4}, {"clip_norm": 0.05}, {"accumulate": 2, "clip_norm": 0.05}):
        parities = [parity(stage=stage, gpus=2, workload=odd("twice"), **SGD, **settings) for stage in (0, 1, 2, 3)]
        assert all(p.weights_error < 1e-5 for p in parities), settings


def test_what_is_right_only_after_backward_is_trained_without_overlap(parity: Callable[..., Parity]) -> None:
    parities = [parity(workload=odd("reentrant"), stage=stage, gpus=2, overlap=False, **SGD) for stage in (0, 1, 2, 3)]
    assert all(p.weights_error < 1e-5 for p in parities)


def test_units_that_are_merged_are_read_from_outside_like_others(parity: Callable[..., Parity]) -> None:
    for kind in ("captured", "outside", "returned"):
        assert parity(workload=odd(kind), stage=3, gpus=2, bucket_mb=1, **SGD).weights_error < 1e-5


def test_inputs_that_need_a_gradient_get_one(parity: Callable[..., Parity]) -> None:
    for stage in (0, 3):
        assert parity(stage=stage, gpus=2, workload=odd("twice", input_gradients=True), **SGD).weights_error < 1e-5


@pytest.mark.parametrize(
    ("kind", "stage", "why"),
    [
        ("bounded", 0, "table rewrites its weights in forward"),
        ("bounded", 3, "table rewrites its weights in forward"),
        ("skipped", 3, "ranks use units in different orders"),
        ("reentrant", 1, "got a gradient after its bucket had been reduced"),
        ("reentrant", 3, "got a gradient after its bucket had been reduced"),
        ("aliased", 2, "layer.weight and transposed share memory"),
        ("scripted", 3, "0 is a scripted module, which takes no hooks"),
    ],
)
def test_what_cannot_be_trained_is_rejected_by_its_name(
    kind: str, stage: int, why: str, make_cell: MakeCell, launcher: Launcher, scratch: Path
) -> None:
    cell = make_cell(engine="native", stage=stage, gpus=2, workload=odd(kind), batch_size=1, bucket_mb=0.0001)
    result = launcher.launch(Jobs(cell, scratch).timing())
    assert result.status == "unsupported"
    assert why in result.reason
