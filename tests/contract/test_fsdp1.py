"""FullyShardedDataParallel on real ranks: training, memory and traffic."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.metrics.memory import memory
from analysis.metrics.traffic import sent_bytes
from analysis.theory import predict_rest, predict_sent, predict_state
from tests.conftest import AsRecord, MakeCell, RunCheck, assert_parity, planned

ALL = {"memory": True, "collectives": True}
MLP = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 4, "width": 61}
"""Nothing divides by the world size or by 16 bytes."""
ADAPTED = {"name": "adapted", "factory": "tests.models:Odd", "kind": "adapted"}
"""Frozen weights and trained ones in one unit."""


@pytest.mark.parametrize(
    ("gpus", "settings"),
    [
        (3, {"accumulate": 2}),
        pytest.param(2, {"stage": 2, "accumulate": 2, "precision": "bf16_master"}, marks=pytest.mark.exhaustive),
        pytest.param(4, {"shard_size": 2}, marks=pytest.mark.exhaustive),
        pytest.param(4, {"stage": 2, "shard_size": 2}, marks=pytest.mark.exhaustive),
        pytest.param(2, {"workload": ADAPTED}, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_training_memory_and_traffic_are_as_predicted(
    gpus: int, settings: dict[str, Any], make_cell: MakeCell, run_check: RunCheck, as_record: AsRecord
) -> None:
    """The peak is at most the predicted one; everything else is equal to the byte."""
    cell = make_cell(engine="fsdp1", gpus=gpus, measure=ALL, **({"stage": 3, "workload": MLP} | settings))
    ranks = run_check(cell)
    assert_parity(ranks)
    record = as_record(cell, ranks)
    record.memory = [rank.memory for rank in ranks if rank.memory]
    record.collectives = ranks[0].collectives
    states = [rank.memory.state_bytes for rank in ranks]
    predicted = predict_state(record)
    largest = max(states, key=lambda state: sum(state.values()))
    assert {kind: size for kind, size in predicted.items() if size} == {
        kind: largest[kind] for kind in largest if largest[kind]
    }
    assert max(rank.memory.rest_bytes - rank.memory.rest_by_kind.get("batch", 0) for rank in ranks) == pytest.approx(
        predict_rest(record), rel=0.01
    )
    assert sent_bytes(record) == predict_sent(record)
    peak_bytes = memory(record).peak_predicted_bytes
    assert peak_bytes is not None
    assert all(rank.peak_bytes <= peak_bytes for rank in record.memory)


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        (3, {"precision": "amp_bf16", "clip_norm": 0.1}),
        pytest.param(3, {"precision": "amp_fp16", "clip_norm": 0.1}, marks=pytest.mark.exhaustive),
        pytest.param(2, {"checkpointing": "full"}, marks=pytest.mark.exhaustive),
        pytest.param(3, {"checkpointing": "selective"}, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_training_equals_a_single_process(
    stage: int, settings: dict[str, Any], make_cell: MakeCell, run_check: RunCheck
) -> None:
    assert_parity(run_check(make_cell(engine="fsdp1", stage=stage, gpus=2, workload="gpt", batch_size=4, **settings)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("options", [{"backward_prefetch": "none"}, {"backward_prefetch": "post"}], ids=str)
def test_its_options_take_effect(options: dict[str, Any], make_config: Any, run_check: RunCheck) -> None:
    others = {"forward_prefetch": True, "limit_all_gathers": False}
    ranks = run_check(planned(make_config, options | others, engine="fsdp1", stage=3, gpus=2, workload=MLP))
    assert_parity(ranks)
    assert ranks[0].description["forward_prefetch"] is True
    assert str(ranks[0].description["backward_prefetch"]).lower() == options["backward_prefetch"]


@pytest.mark.exhaustive
def test_rank_0_of_a_simulated_world_is_that_of_a_real_one(make_cell: MakeCell, run_check: RunCheck) -> None:
    settings: dict[str, Any] = {"stage": 3, "gpus": 3, "accumulate": 2, "workload": MLP, "clip_norm": 1.0}
    quick = {"parity_steps": 0, **ALL}
    cells = [make_cell(engine="fsdp1", backend=backend, measure=quick, **settings) for backend in ("gloo", "fake")]
    real, alone = map(run_check, cells)
    assert (len(real), len(alone)) == (3, 1)
    assert alone[0].memory.state_bytes == real[0].memory.state_bytes
    assert alone[0].collectives == real[0].collectives
