"""Predicted model state against what engines really hold, on the rank that holds most, to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from analysis.theory import ENGINES, predict_state
from tests.conftest import AsRecord, MakeCell, RunCheck, each_engine


def odd(kind: str) -> dict[str, Any]:
    return {"name": kind, "factory": "tests.models:Odd", "kind": kind}


PLAIN = ({"gpus": 3}, {"gpus": 2, "precision": "bf16_master"}, {"gpus": 2, "compression": "bf16"})
OTHERS: tuple[dict[str, Any], ...] = (
    {"gpus": 2, "precision": "bf16", "optimizer": "sgd"},
    {"gpus": 4, "bucket_mb": 0.3, "workload": "gpt", "optimizer": "rmsprop"},
    {"gpus": 4, "shard_size": 2, "workload": "gpt"},
    {"gpus": 2, "precision": "bf16", "workload": odd("half")},
    {"gpus": 2, "precision": "bf16_master", "workload": odd("half_in_part")},
    {"gpus": 2, "workload": odd("double")},
)


def stages_and_settings() -> Iterator[Any]:
    """What shards nothing and what shards all, the latter with every setting; the rest in make exhaustive."""
    for settings in (*PLAIN, *OTHERS):
        for stage in range(4):
            often = stage == 3 or (stage == 0 and settings in PLAIN)
            yield pytest.param(stage, settings, id=f"{stage}-{settings}", marks=() if often else pytest.mark.exhaustive)


@pytest.mark.parametrize("engine", each_engine(ENGINES))
@pytest.mark.parametrize(("stage", "settings"), stages_and_settings())
def test_predicted_model_state_is_what_the_engine_holds(
    engine: str,
    stage: int,
    settings: dict[str, Any],
    make_cell: MakeCell,
    run_check: RunCheck,
    as_record: AsRecord,
) -> None:
    cell = make_cell(engine=engine, stage=stage, measure={"parity_steps": 0, "memory": True}, **settings)
    if cell.status:
        pytest.skip(cell.reason)
    ranks = run_check(cell)
    record = as_record(cell, ranks)
    largest = max((rank.memory.state_bytes for rank in ranks), key=lambda state: sum(state.values()))
    predicted = predict_state(record)
    assert predicted is not None
    assert {kind: size for kind, size in predicted.items() if size} == {
        kind: size for kind, size in largest.items() if size
    }
