"""8-bit Adam on real ranks: the state that it keeps, and training where ranks have whole weights."""

from __future__ import annotations

import pytest

from analysis.theory import predict_state
from tests.conftest import AsRecord, MakeCell, RunCheck, assert_parity

MLP = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 4, "width": 64}
"""Weights of 4,096 elements, the least that torchao quantizes; biases stay in fp32."""


@pytest.mark.parametrize(
    ("engine", "stage", "has_whole_weights"),
    [
        ("native", 3, False),
        pytest.param("native", 0, False, marks=pytest.mark.exhaustive),
        pytest.param("torch", 0, True, marks=pytest.mark.exhaustive),
        pytest.param("torch", 1, True, marks=pytest.mark.exhaustive),
        pytest.param("torch", 3, False, marks=pytest.mark.exhaustive),
    ],
)
def test_its_state_is_the_predicted_one_and_whole_weights_train_as_a_single_process(
    engine: str, stage: int, has_whole_weights: bool, make_cell: MakeCell, run_check: RunCheck, as_record: AsRecord
) -> None:
    measure = {"parity_steps": 3 if has_whole_weights else 0, "memory": True}
    cell = make_cell(engine=engine, stage=stage, gpus=2, workload=MLP, optimizer="adam8bit", measure=measure)
    ranks = run_check(cell)
    if has_whole_weights:
        assert_parity(ranks)
    largest = max((rank.memory.state_bytes for rank in ranks), key=lambda state: sum(state.values()))
    predicted = predict_state(as_record(cell, ranks))
    assert predicted and {kind: size for kind, size in predicted.items() if size} == {
        kind: size for kind, size in largest.items() if size
    }
