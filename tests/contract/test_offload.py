"""Offload on real ranks: parity, the bytes on both sides, and the bytes that are copied, against their predictions."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.metrics.memory import PARTS, memory
from tests.conftest import AsRecord, MakeCell, RunCheck, assert_parity

CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("native", 3, {"offload": "optimizer", "precision": "bf16_master"}),
    ("native", 1, {"offload": "optimizer", "accumulate": 2, "clip_norm": 0.1}),
    ("torch", 3, {"offload": "params", "accumulate": 2}),
    ("deepspeed", 1, {"offload": "optimizer", "precision": "bf16_master"}),
    ("deepspeed", 2, {"offload": "optimizer", "accumulate": 2, "clip_norm": 0.1}),
    ("deepspeed", 3, {"offload": "params", "precision": "bf16_master"}),
]


@pytest.mark.parametrize(("engine", "stage", "settings"), CASES)
def test_training_is_the_same_and_both_sides_are_as_predicted(
    engine: str,
    stage: int,
    settings: dict[str, Any],
    make_cell: MakeCell,
    run_check: RunCheck,
    as_record: AsRecord,
) -> None:
    cell = make_cell(engine=engine, stage=stage, gpus=2, measure={"memory": True}, **settings)
    ranks = run_check(cell)
    assert_parity(ranks)
    record = as_record(cell, ranks)
    record.memory = [rank.memory for rank in ranks if rank.memory]
    cell_memory = memory(record)
    host = cell_memory.offloaded
    assert host and host.predicted and host.copied_predicted and host.host_is_device
    assert without_zeros(cell_memory.predicted) == without_zeros(cell_memory.state)
    assert without_zeros(host.predicted) == without_zeros(host.state)
    copied = (host.to_host_bytes, host.to_device_bytes)
    assert copied == (host.copied_predicted.to_host, host.copied_predicted.to_device)
    for rank in record.memory:
        freed = rank.host_state_bytes["grads"] if engine == "torch" else 0
        in_host = sum(rank.host_state_bytes.values()) - freed
        assert rank.rest_by_kind["host"] == in_host, "on a CPU the allocator counts the host's side"
    at_rest = record.memory[0].rest_by_kind
    if engine != "deepspeed":  # some of whose buffers are in no formula
        assert cell_memory.rest_bytes == sum(at_rest.get(kind, 0) for kind in PARTS["state"])


def without_zeros(bytes_by_kind: dict[str, int] | None) -> dict[str, int]:
    return {kind: size for kind, size in (bytes_by_kind or {}).items() if size}


def test_what_an_engine_cannot_offload_is_unsupported(make_cell: MakeCell) -> None:
    for engine, stage, offload, reason in (
        ("native", 3, "params", "valid: none, optimizer"),
        ("pipeline", 0, "optimizer", "engine=pipeline has no offload=optimizer"),
        ("torch", 3, "optimizer", "valid at stage=3: none, params"),
        ("torch", 1, "params", "DistributedDataParallel keeps all state on the device"),
        ("deepspeed", 2, "params", "valid: optimizer, stage=3"),
    ):
        cell = make_cell(engine=engine, stage=stage, gpus=2, offload=offload)
        assert cell.status == "unsupported" and reason in cell.reason
