"""Quantized communication on real ranks: against ranks of one process that round alike, and to the byte."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from analysis.metrics.memory import memory
from analysis.metrics.traffic import sent_bytes
from bench.launch.launcher import Launcher
from bench.plan.cell import Cell
from bench.plan.jobs import Jobs
from bench.rank_results import CheckResult
from bench.worker.parity import compare
from tests.conftest import AsRecord, MakeCell, RunCheck, assert_parity, ended_well
from tests.quantized_oracle import Oracle

STEPS = 3
MLP = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 4, "width": 48}
"""A unit has 2,352 elements: at three ranks a shard has three blocks and 16 elements more."""
FAULTS = ("exact", "unreduced", "lost", "stale")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("quantize", "settings"),
    [
        ("weights", {"stage": 3, "gpus": 4, "secondary_shard_size": 2, "accumulate": 2, "checkpointing": "full"}),
        ("gradients", {"stage": 1, "gpus": 2, "accumulate": 2, "bucket_mb": 0.02}),
        pytest.param("weights_and_gradients", {"stage": 3, "gpus": 3, "accumulate": 2}, marks=pytest.mark.exhaustive),
        pytest.param(
            "gradients",
            {"stage": 2, "gpus": 2, "accumulate": 2, "bucket_mb": 0.02, "overlap": False},
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_ranks_train_as_ranks_of_one_process_that_round_alike_and_send_what_is_predicted(
    quantize: str, settings: dict[str, Any], make_cell: MakeCell, launcher: Launcher, scratch: Path, as_record: AsRecord
) -> None:
    """A rank that computed with other weights, or an unreduced or lost bucket, would be beyond the tolerance."""
    cell = make_cell(
        engine="native",
        quantize=quantize,
        workload=MLP,
        optimizer="sgd",
        lr=0.05,
        measure={"memory": True, "collectives": True},
        **settings,
    )
    assert cell.outside_parity() == f"quantize={quantize} communicates 8-bit numbers"
    oracle = scratch / f"{quantize}-{cell.config.stage}.pt"
    job = dataclasses.replace(Jobs(cell, scratch).check(), parity_steps=STEPS, reference=str(oracle))
    reference = Oracle(job, settings.get("bucket_mb")).train()
    reference.save(oracle)
    ranks = ended_well(launcher.launch(job), may_reject=False).ranks
    parity = ranks[0].parity
    assert parity.weights_error < 1e-5 and parity.loss_error < 1e-5 and not parity.ranks_differ, parity
    for fault in FAULTS:
        wrong = Oracle(job, settings.get("bucket_mb"), fault).train()
        assert compare(reference, wrong.losses, wrong.final, "fp32").weights_error > 1e-3, fault
    assert_as_predicted(cell, ranks, as_record)


def assert_as_predicted(cell: Cell, ranks: list[CheckResult], as_record: AsRecord) -> None:
    """What is kept and sent, to the byte; the peak is at most a gradient that autograd hands over above."""
    record = as_record(cell, ranks)
    record.memory = [rank.memory for rank in ranks if rank.memory]
    record.collectives_by_rank = [rank.collectives for rank in ranks if rank.collectives is not None]
    record.collectives = record.collectives_by_rank[0]
    theory = memory(record)
    assert sent_bytes(record) == theory.sent_bytes
    assert {kind: size for kind, size in (theory.predicted or {}).items() if size} == {
        kind: size for kind, size in (theory.state or {}).items() if size
    }
    unit = 4 * 48 * 49
    assert theory.peak_bytes and theory.peak_predicted_bytes and theory.peak_bytes <= theory.peak_predicted_bytes + unit


def test_where_numbers_would_be_quantized_again_and_again_or_not_at_all_quantize_is_unsupported(
    make_cell: MakeCell,
) -> None:
    for engine, stage, quantize, reason in (
        ("native", 0, "gradients", "an all-reduce passes partial sums on"),
        ("native", 0, "weights", "valid: quantize=none, stage=1, 2, 3"),
        (
            "native",
            2,
            "weights",
            "quantization would replace what is trained; valid: quantize=none, quantize=gradients",
        ),
        ("torch", 3, "weights", "its wrappers exchange floating-point numbers; valid: quantize=none, engine=native"),
        ("pipeline", 0, "gradients", "it sends floating-point numbers"),
    ):
        cell = make_cell(engine=engine, stage=stage, gpus=2, quantize=quantize)
        assert cell.status == "unsupported" and reason in cell.reason, cell.reason


def test_a_second_copy_needs_gathered_parameters_and_equal_groups(make_cell: MakeCell) -> None:
    for engine, stage, size, reason in (
        ("native", 2, 2, "parameters stay whole; valid: secondary_shard_size=null, stage=3"),
        ("native", 3, 3, "valid with gpus=4: null, 2, 4"),
        ("torch", 3, 2, "fully_shard keeps no second copy"),
    ):
        cell = make_cell(engine=engine, stage=stage, gpus=4, secondary_shard_size=size)
        assert cell.status == "unsupported" and reason in cell.reason, cell.reason


def test_a_second_copy_among_neighbours_keeps_parity_and_is_kept_and_sent_as_predicted(
    make_cell: MakeCell, run_check: RunCheck, as_record: AsRecord
) -> None:
    """On four ranks, in pairs, two micro-batches gather once from all ranks and three times from the neighbour."""
    measured = {"parity_steps": STEPS, "memory": True, "collectives": True}
    settings: dict[str, Any] = {"engine": "native", "stage": 3, "gpus": 4, "accumulate": 2, "workload": MLP}
    cell = make_cell(secondary_shard_size=2, measure=measured, **settings)
    ranks = run_check(cell)
    assert_parity(ranks)
    assert_as_predicted(cell, ranks, as_record)
