"""FullyShardedDataParallel's flattened units, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.theory import predict_rest, predict_sent, predict_state, predict_transient
from results.model import Parameter
from results.record import Record
from tests.fakes import cell, cnn_model, two_layers

MODEL = two_layers()
UNIT = 35 + 1 + 7 + 1
"""Weight, alignment to 16 bytes, bias, and padding to two equal parts."""
ROOT = 21 + 3 + 3 + 1


def fsdp1(stage: int, gpus: int, shard_size: int | None = None, **settings: Any) -> Record:
    record = cell(stage, gpus, model=MODEL, engine__name="fsdp1", engine__backward_prefetch="pre", **settings)
    record.config["shard_size"] = shard_size
    return record


@pytest.mark.parametrize("stage", [2, 3])
def test_a_rank_keeps_an_equal_part_of_each_flattened_unit(stage: int) -> None:
    """Rank 0's parts are 22 elements of one weight and 14 of the other: the optimizer keeps no padding."""
    part = (UNIT + ROOT) // 2
    predicted = {"params": 4 * part, "master": 0, "grads": 4 * part, "optimizer": 8 * (22 + 14) + 2 * 4, "buffers": 24}
    assert predict_state(fsdp1(stage, 2)) == predicted
    assert predict_rest(fsdp1(stage, 2)) == sum(predicted.values()), "gradients are freed in the next forward"


def test_master_weights_are_aligned_as_the_weights_that_forward_sees() -> None:
    """Eight bf16 elements are 16 bytes; parts, their gradients and optimizer state are fp32."""
    unit, root = 35 + 5 + 7 + 1, 21 + 3 + 3 + 1
    state = predict_state(fsdp1(3, 2, precision="bf16_master"))
    assert state is not None
    assert (state["params"], state["master"], state["grads"]) == (0, 4 * (unit + root) // 2, 4 * (unit + root) // 2)
    assert state["optimizer"] == 8 * (24 + 14) + 2 * 4


def test_one_trained_parameter_makes_a_gradient_of_its_whole_unit() -> None:
    frozen = [Parameter(one.name, one.shape, one.name == "0.bias", one.unit) for one in MODEL.parameters]
    record = fsdp1(3, 2)
    record.model = cnn_model(parameters=frozen)
    state = predict_state(record)
    assert state is not None
    assert state["grads"] == 4 * UNIT // 2
    assert state["optimizer"] == 8 * 7 + 4, "all of it is in rank 1's part"


def test_hybrid_sharding_cuts_each_copy_and_all_reduces_between_copies() -> None:
    assert predict_state(fsdp1(3, 4, shard_size=2)) == predict_state(fsdp1(3, 2))
    within, between = predict_sent(fsdp1(3, 2)), 2 * (1 / 2) * 4 * (UNIT + ROOT) / 2
    assert within is not None
    assert predict_sent(fsdp1(3, 4, shard_size=2)) == within + between


def test_backward_gathers_units_again_at_stage_3_but_not_the_root() -> None:
    whole = UNIT + ROOT
    assert predict_sent(fsdp1(2, 2)) == 4 * (whole + whole) / 2
    assert predict_sent(fsdp1(2, 2, accumulate=3)) == predict_sent(fsdp1(2, 2)), "what was gathered stays"
    assert predict_sent(fsdp1(3, 2)) == 4 * (2 * whole - ROOT + whole) / 2
    assert predict_sent(fsdp1(3, 2, accumulate=3)) == 4 * (3 * (2 * whole - ROOT) + whole) / 2


def test_stage_2_needs_all_parameters_and_both_need_a_units_gradients_twice() -> None:
    gradients = 4 * (2 * UNIT + UNIT // 2)
    assert predict_transient(fsdp1(2, 2)) == 4 * (UNIT + ROOT) + gradients
    assert predict_transient(fsdp1(3, 2)) == 4 * (UNIT + ROOT) + gradients
    late = 4 * (UNIT + ROOT) + gradients + 4 * UNIT
    assert predict_transient(fsdp1(3, 2, engine__forward_prefetch=True)) == late, "a reduction is late by one unit"
    assert predict_transient(fsdp1(3, 2, precision="amp_bf16")) == 4 * (UNIT + ROOT) + gradients + 2 * 66


def test_a_gpu_without_a_limit_may_gather_all_units_at_stage_3() -> None:
    larger = [Parameter(f"{unit}.weight", [8, 8], True, unit) for unit in range(4)]

    def gathered(device: str, **options: Any) -> int:
        record = fsdp1(3, 2, **options)
        record.model, record.resolved["device"] = cnn_model(parameters=larger), device
        transient = predict_transient(record)
        assert transient is not None
        return transient - 4 * (2 * 64 + 32)

    assert gathered("cuda", engine__limit_all_gathers=False) == 4 * 4 * 64
    assert gathered("cuda", engine__limit_all_gathers=True) == gathered("cpu") == 4 * 2 * 64


def test_there_is_no_prediction_for_stages_that_it_lacks() -> None:
    assert predict_state(fsdp1(0, 2)) is None
