"""Activation checkpointing under sharded parameters: on real ranks, against a single process without it."""

from __future__ import annotations

import pytest

from analysis.metrics.memory import memory
from tests.conftest import AsRecord, MakeCell, RunCheck


@pytest.mark.parametrize(("engine", "mode"), [("native", "full"), ("native", "selective"), ("torch", "full")])
def test_training_is_the_same_and_memory_is_as_predicted(
    engine: str, mode: str, make_cell: MakeCell, run_check: RunCheck, as_record: AsRecord
) -> None:
    """At stage 3, where backward needs the parameters of a unit before it computes the unit again."""
    measure = {"memory": True, "collectives": True}
    cell = make_cell(engine=engine, stage=3, gpus=2, workload="gpt", checkpointing=mode, measure=measure)
    ranks = run_check(cell)
    parity, rank_memory = ranks[0].parity, ranks[0].memory
    assert parity and rank_memory and ranks[0].collectives is not None
    assert parity.loss_error < 1e-5 and parity.weights_error < 1e-5
    record = as_record(cell, ranks)
    record.memory = [rank_memory]
    predicted = memory(record).peak_predicted_bytes
    assert predicted and rank_memory.peak_bytes <= predicted
    assert record.model
    sent = [line.sent_bytes for line in ranks[0].collectives]
    assert None not in sent
    assert sum(filter(None, sent)) == pytest.approx(memory(record).sent_bytes, rel=0.01), "nothing is sent twice"
    forward = record.model.flops_per_unit / 3
    recomputed = record.model.recomputed_flops_per_unit
    assert recomputed == 0 if mode == "selective" else 0.5 * forward < recomputed < forward
