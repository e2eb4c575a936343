"""The memory ledger of real engines: it adds up, and agrees with theory to the byte where theory is exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from analysis.metrics.memory import KINDS, memory
from bench.plan.cell import Cell
from results.record import Record
from results.settings import Config
from tests.conftest import AsRecord, MakeCell, RunCheck, planned

MakeConfig = Callable[..., Config]
LOSS = 4
"""Bytes of a scaled copy of the loss that an engine keeps."""
LANGUAGE = "tests.models_language:NextToken"
QUICK = {"parity_steps": 0, "memory": True}


@pytest.fixture
def measured(run_check: RunCheck, as_record: AsRecord) -> Callable[[Cell], Record]:
    """A record with every rank's memory, each of which adds up."""

    def run(cell: Cell) -> Record:
        ranks = run_check(cell)
        record = as_record(cell, ranks)
        record.memory = [rank.memory for rank in ranks if rank.memory]
        for rank in record.memory:
            assert sum(rank.rest_by_kind.values()) == rank.rest_bytes
            assert sum(rank.peak_by_kind.values()) == rank.peak_bytes
            assert "unseen" not in rank.peak_by_kind
        return record

    return run


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_native_is_what_theory_says(stage: int, make_cell: MakeCell, measured: Callable[[Cell], Record]) -> None:
    """Three ranks, one bucket of 1 MiB: at stage 0 nothing in addition, at 1 what is received, at 2 the bucket as well.

    At stage 3 the gathered unit and the next one are no more than predicted; the gradient that autograd hands over
    (``unreduced``) is in no prediction.
    """
    record = measured(make_cell(engine="native", stage=stage, gpus=3, workload="mlp", measure=QUICK))
    theory = memory(record)
    rank, predicted = record.memory[0], theory.predicted
    assert predicted is not None and theory.working_bytes is not None and theory.compute is not None
    rest, peak = rank.rest_by_kind, rank.peak_by_kind
    kept = [kind for kind in KINDS if predicted[kind] and (kind != "grads" or stage < 2)]
    assert {kind: rest[kind] for kind in rest if kind != "batch"} == {kind: predicted[kind] for kind in kept}
    assert {kind: peak[kind] for kind in kept} == {kind: predicted[kind] for kind in kept}
    working = peak.get("gathered", 0) + peak.get("communication", 0)
    assert working == theory.working_bytes if stage < 3 else working <= theory.working_bytes
    assert (peak.get("gathered", 0) > 0) == (stage == 3)
    assert peak.get("activations", 0) <= theory.compute.activation_bytes + LOSS
    assert rank.peak_phase == "backward"


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_native_peaks_at_most_a_unit_above_theory(
    stage: int, make_cell: MakeCell, measured: Callable[[Cell], Record]
) -> None:
    """The unit is the gradient that autograd hands over. (In bf16 the CPU's matrix product takes additional scratch.)

    At stage 0, which receives nothing, two gradients of activations show too; they come to as much as the batch.
    """
    mlp = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 6, "width": 256, "bias": False}
    record = measured(make_cell(engine="native", stage=stage, gpus=2, workload=mlp, bucket_mb=0.25, measure=QUICK))
    unit_bytes, predicted = 4 * 256 * 256, memory(record).peak_predicted_bytes
    assert predicted is not None
    for rank in record.memory:
        assert rank.peak_bytes <= predicted + unit_bytes + (2 if stage == 0 else 1) * rank.peak_by_kind.get("batch", 0)


@pytest.mark.parametrize(
    ("kind", "settings", "options"),
    [
        ("unreduced", {"accumulate": 2}, {}),
        ("communication", {"local_steps": 2}, {}),
        ("communication", {}, {"gradient_as_bucket_view": False}),
    ],
    ids=str,
)
def test_ddp_holds_as_much_again_as_its_gradients(
    kind: str,
    settings: dict[str, Any],
    options: dict[str, Any],
    make_config: MakeConfig,
    measured: Callable[[Cell], Record],
) -> None:
    """At most a unit beyond the prediction, the gradient that autograd hands over."""
    mlp = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 6, "width": 256, "bias": False}
    record = measured(planned(make_config, options, gpus=2, workload=mlp, measure=QUICK, **settings))
    unit_bytes, theory, rank = 4 * 256 * 256, memory(record), record.memory[0]
    assert theory.working_bytes == 6 * unit_bytes
    assert theory.predicted == {kind: rank.state_bytes.get(kind, 0) for kind in KINDS}
    assert sum(rank.rest_by_kind.get(kind, 0) for kind in KINDS) == theory.rest_bytes
    assert 0 <= rank.peak_by_kind[kind] - theory.working_bytes <= unit_bytes


def test_fully_shard_without_resharding_keeps_what_it_gathered(
    make_cell: MakeCell, measured: Callable[[Cell], Record]
) -> None:
    """At its peak stage 2 holds two of its four units whole or more, and stage 3 two or less."""
    record = measured(make_cell(engine="torch", stage=2, gpus=2, workload="mlp", measure=QUICK))
    unit = 4 * 256 * 257
    assert record.memory[0].peak_by_kind["gathered"] >= 2 * unit
    resharded = measured(make_cell(engine="torch", stage=3, gpus=2, workload="mlp", measure=QUICK))
    assert resharded.memory[0].peak_by_kind.get("gathered", 0) <= 2 * unit


def test_a_process_alone_says_what_activations_to_expect(
    make_cell: MakeCell, measured: Callable[[Cell], Record]
) -> None:
    """With 512 samples the peak comes just after the loss's node, which has freed the last layer's output."""
    record = measured(make_cell(engine="torch", stage=0, gpus=2, batch_size=512, workload="mlp", measure=QUICK))
    theory, peak = memory(record), record.memory[0].peak_by_kind
    output = 4 * 512 * 256
    scalars = 64
    assert theory.compute is not None
    assert theory.compute.activation_bytes == pytest.approx(4 * output, abs=scalars)  # ReLUs, and what mse_loss returns
    assert peak["activations"] == pytest.approx(4 * output, abs=scalars)


@pytest.mark.parametrize("engine", ["torch", "native"])
@pytest.mark.parametrize(
    "model", ["attention", pytest.param("scan", marks=pytest.mark.exhaustive), "adapted", "gpt", "bert"]
)
def test_the_peak_of_a_language_model_is_predicted_to_the_byte(
    model: str, engine: str, make_cell: MakeCell, measured: Callable[[Cell], Record]
) -> None:
    """Logits, their softmax and its gradient, a scan's states and their gradients, and the batch are all in it."""
    workload = model if model in ("gpt", "bert") else {"name": model, "factory": LANGUAGE, "kind": model}
    record = measured(make_cell(engine=engine, stage=0, gpus=2, workload=workload, measure=QUICK))
    predicted = memory(record).peak_predicted_bytes
    assert predicted is not None
    assert all(0 <= rank.peak_bytes - predicted <= LOSS for rank in record.memory)


@pytest.mark.parametrize("engine", ["torch", "native"])
def test_at_stage_3_the_predicted_peak_of_a_language_model_is_an_upper_bound(
    engine: str, make_cell: MakeCell, measured: Callable[[Cell], Record]
) -> None:
    workload = {"name": "scan", "factory": LANGUAGE, "kind": "scan"}
    record = measured(make_cell(engine=engine, stage=3, gpus=2, workload=workload, measure=QUICK))
    predicted = memory(record).peak_predicted_bytes
    assert predicted is not None
    assert all(0.9 * predicted <= rank.peak_bytes <= predicted for rank in record.memory)


def deep(kind: str) -> dict[str, Any]:
    return {"name": kind, "factory": "tests.models:Odd", "kind": kind, "width": 128, "depth": 8}


def test_stage_3_holds_two_units_also_where_forward_runs_again(
    make_cell: MakeCell, measured: Callable[[Cell], Record]
) -> None:
    record = measured(make_cell(engine="native", stage=3, gpus=2, workload=deep("checkpointed"), measure=QUICK))
    unit = 4 * 128 * 129
    assert all(unit <= rank.peak_by_kind["gathered"] <= 2 * unit for rank in record.memory)


def test_stage_3_holds_three_units_of_eight_where_weights_are_frozen(
    make_cell: MakeCell, measured: Callable[[Cell], Record]
) -> None:
    """That which backward leaves too. No gradient tells of a frozen weight: it is known as what a collective filled."""
    record = measured(make_cell(engine="native", stage=3, gpus=2, workload=deep("adapted"), measure=QUICK))
    frozen, adapters = 4 * 128 * 129, 4 * 2 * 128 * 2
    for rank in record.memory:
        peak = rank.peak_by_kind
        assert frozen <= peak.get("gathered", 0) + peak.get("communication", 0) <= 3 * frozen + 5 * adapters
