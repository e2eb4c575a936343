"""Muon: whole matrices where they are sharded, against a single process; and the state that it keeps."""

from __future__ import annotations

import pytest

from analysis.theory import predict_sent, predict_state
from tests.conftest import AsRecord, Judged, MakeCell, RunCheck, group

MUON = {"optimizer": "muon", "lr": 0.01, "gpus": 2}


def test_native_trains_alike_at_every_stage_and_as_torch_does(
    make_cell: MakeCell, judged: Judged, run_check: RunCheck
) -> None:
    """Bit by bit: the same matrices are orthogonalized, whoever keeps which part of them."""
    first, *others = (
        make_cell(engine=engine, stage=stage, workload="gpt", **MUON)
        for engine, stage in (("native", 3), ("native", 1), ("native", 0), ("torch", 1))
    )
    parity = judged(first)
    assert parity.passed, (parity.failed, parity.unjudged)
    parities = [run_check(cell)[0].parity for cell in others]
    assert {other.weights_digest for other in parities if other} == {parity.weights_digest}


def test_matrices_that_three_ranks_share_are_whole_in_the_update(make_cell: MakeCell, judged: Judged) -> None:
    settings = MUON | {"precision": "bf16_master", "clip_norm": 0.5, "gpus": 3}
    parity = judged(make_cell(engine="native", stage=3, workload="gpt", **settings))
    assert parity.passed, (parity.failed, parity.unjudged)


def test_stages_of_a_pipeline_update_their_own_matrices(make_cell: MakeCell, judged: Judged) -> None:
    engine, workload = group("engine", "pipeline") | {"degree": 2}, group("workload", "gpt") | {"tie": False}
    parity = judged(make_cell(engine=engine, workload=workload, **MUON))
    assert parity.passed, (parity.failed, parity.unjudged)


@pytest.mark.parametrize(("engine", "stage"), [("native", 3), ("torch", 1)])
def test_state_and_traffic_are_the_predicted_ones(
    engine: str, stage: int, make_cell: MakeCell, run_check: RunCheck, as_record: AsRecord
) -> None:
    measure = {"parity_steps": 0, "memory": True, "collectives": True}
    cell = make_cell(engine=engine, stage=stage, workload="gpt", measure=measure, **MUON)
    ranks = run_check(cell)
    record = as_record(cell, ranks)
    largest = max((rank.memory.state_bytes for rank in ranks), key=lambda state: sum(state.values()))
    predicted = predict_state(record)
    assert predicted and {kind: size for kind, size in predicted.items() if size} == {
        kind: size for kind, size in largest.items() if size
    }
    if engine == "native":
        sent: list[float] = [line.sent_bytes or 0 for line in ranks[0].collectives]
        assert sum(sent) == predict_sent(record)
