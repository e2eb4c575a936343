"""Accelerate and Fabric on real ranks: they train, keep and send what the wrapped engine does, and nothing more."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.metrics.traffic import sent_bytes
from analysis.theory import predict_sent, predict_state
from tests.conftest import AsRecord, MakeCell, RunCheck, assert_parity

ALL = {"memory": True, "collectives": True}
MLP = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 3, "width": 60, "bias": False}
"""Rows that divide by three: ``fully_shard`` pads nothing."""


@pytest.mark.parametrize(
    ("engine", "stage", "settings"),
    [
        ("accelerate", 0, {"accumulate": 2}),
        ("fabric", 0, {"accumulate": 2}),
        ("fabric", 3, {"accumulate": 2}),
        pytest.param("fabric", 2, {"accumulate": 2}, marks=pytest.mark.exhaustive),
        pytest.param("fabric", 3, {"precision": "bf16_master"}, marks=pytest.mark.exhaustive),
        pytest.param("accelerate", 0, {"bucket_mb": 0.01, "compression": "bf16"}, marks=pytest.mark.exhaustive),
        pytest.param("accelerate", 0, {"precision": "bf16", "checkpointing": "full"}, marks=pytest.mark.exhaustive),
        pytest.param("fabric", 0, {"precision": "bf16", "bucket_mb": 0.01}, marks=pytest.mark.exhaustive),
        pytest.param("fabric", 3, {"checkpointing": "full"}, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_training_memory_and_traffic_are_those_of_what_is_wrapped(
    engine: str, stage: int, settings: dict[str, Any], make_cell: MakeCell, run_check: RunCheck, as_record: AsRecord
) -> None:
    cell = make_cell(engine=engine, stage=stage, gpus=3, workload=MLP, measure=ALL, **settings)
    ranks = run_check(cell)
    assert_parity(ranks, 0.02 if "compression" in settings else None)
    record = as_record(cell, ranks)
    record.collectives = ranks[0].collectives
    largest = max((rank.memory.state_bytes for rank in ranks), key=lambda state: sum(state.values()))
    predicted = predict_state(record)
    assert predicted is not None
    assert {kind: size for kind, size in predicted.items() if size} == {
        kind: size for kind, size in largest.items() if size
    }
    assert sent_bytes(record) == predict_sent(record)


@pytest.mark.parametrize(("engine", "stage"), [("accelerate", 0), ("fabric", 3)])
def test_autocast_and_clipping_equal_a_single_process(
    engine: str, stage: int, make_cell: MakeCell, run_check: RunCheck
) -> None:
    settings = {"precision": "amp_bf16", "clip_norm": 0.1, "batch_size": 4, "workload": "gpt"}
    assert_parity(run_check(make_cell(engine=engine, stage=stage, gpus=2, **settings)))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("engine", "stage"), [("accelerate", 0), ("fabric", 0), ("fabric", 3)])
def test_rank_0_of_a_simulated_world_is_that_of_a_real_one(
    engine: str, stage: int, make_cell: MakeCell, run_check: RunCheck
) -> None:
    quick = {"parity_steps": 0, **ALL}
    cells = [
        make_cell(engine=engine, stage=stage, gpus=3, backend=backend, measure=quick, workload=MLP, clip_norm=1.0)
        for backend in ("gloo", "fake")
    ]
    real, alone = map(run_check, cells)
    assert (len(real), len(alone)) == (3, 1)
    assert alone[0].memory.state_bytes == real[0].memory.state_bytes
    assert alone[0].collectives == real[0].collectives
