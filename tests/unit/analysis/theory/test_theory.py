"""Predictions of model state and communication, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from analysis.metrics.memory import memory
from analysis.metrics.offload import offloaded
from analysis.theory import (
    predict_counted_host,
    predict_paper,
    predict_rest,
    predict_sent,
    predict_state,
    predict_transient,
)
from analysis.theory.paper import paper_sent, paper_state
from analysis.theory.torch_engine import shard_elements, zero_partition
from results.model import Parameter
from results.record import Record
from tests.fakes import bare, cell, cnn_model, two_layers

P = 7 * 5 + 7 + 3 * 7 + 3  # two linear layers, 5 -> 7 -> 3: 66 parameters
MODEL = two_layers()


def state(stage: int, gpus: int, **settings: object) -> dict[str, int]:
    bytes_by_kind = predict_state(cell(stage, gpus, model=MODEL, **settings))
    assert bytes_by_kind is not None
    return bytes_by_kind


def test_ddp_with_adam_keeps_sixteen_bytes_per_parameter_and_a_counter_per_tensor() -> None:
    assert state(0, 4) == {"params": 4 * P, "master": 0, "grads": 4 * P, "optimizer": 8 * P + 16, "buffers": 24}


@pytest.mark.parametrize(
    ("optimizer", "size"), [("sgd", 4 * P), ("adam", 8 * P + 16), ("adamw", 8 * P + 16), ("rmsprop", 4 * P + 16)]
)
def test_each_optimizer_keeps_its_own(optimizer: str, size: int) -> None:
    assert state(0, 1, optimizer=optimizer)["optimizer"] == size


def test_buckets_that_gradients_are_no_views_of_are_no_state_and_outlive_them() -> None:
    def needed(**settings: object) -> tuple[int | None, int | None]:
        record = cell(0, 2, model=MODEL, **settings)
        return predict_transient(record), predict_rest(record)

    assert state(0, 2, engine__gradient_as_bucket_view=False) == state(0, 2)
    kept = 4 * P + 8 * P + 16 + 24
    assert needed() == (0, kept + 4 * P)
    assert needed(engine__gradient_as_bucket_view=False) == (4 * P, kept)
    assert needed(engine__gradient_as_bucket_view=False, accumulate=2) == (4 * P, kept)
    assert needed(engine__gradient_as_bucket_view=False, local_steps=2) == (8 * P, kept)


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({"accumulate": 2}, 4),
        ({"accumulate": 2, "precision": "bf16"}, 2),
        ({"local_steps": 3}, 4),
        ({"local_steps": 3, "accumulate": 2}, 4),
    ],
    ids=str,
)
def test_ddp_needs_gradients_outside_of_its_buckets_or_a_copy_of_the_weights(
    settings: dict[str, object], width: int
) -> None:
    assert predict_transient(cell(0, 2, model=MODEL, **settings)) == width * P


def test_pure_bf16_halves_everything_but_the_counters() -> None:
    assert state(0, 2, precision="bf16") == {
        "params": 2 * P,
        "master": 0,
        "grads": 2 * P,
        "optimizer": 4 * P + 16,
        "buffers": 24,
    }


def test_autocast_keeps_what_fp32_keeps() -> None:
    assert state(3, 2, precision="amp_bf16") == state(3, 2)


def test_zero_redundancy_optimizer_gives_whole_parameters_to_the_emptiest_rank() -> None:
    assert zero_partition([35, 7, 21, 3], 2) == [[0], [2, 1, 3]]
    assert zero_partition([5, 5, 5], 2) == [[0, 2], [1]], "equal sizes keep their order; ties go to the lowest rank"
    assert zero_partition([4], 3) == [[0], [], []]


def test_stage_1_is_predicted_for_the_rank_with_the_largest_part() -> None:
    bytes_by_kind = state(1, 2)
    assert bytes_by_kind["optimizer"] == 35 * 8 + 4
    assert (bytes_by_kind["params"], bytes_by_kind["grads"]) == (4 * P, 4 * P)


def test_fully_shard_gives_rank_0_whole_rows_rounded_up() -> None:
    assert shard_elements([7, 5], 2) == 4 * 5
    assert shard_elements([3], 4) == 1
    assert shard_elements([], 4) == 1


@pytest.mark.parametrize("stage", [2, 3])
def test_fully_shard_keeps_shards_only(stage: int) -> None:
    kept = 4 * 5 + 4 + 2 * 7 + 2
    assert state(stage, 2) == {
        "params": 4 * kept,
        "master": 0,
        "grads": 4 * kept,
        "optimizer": 8 * kept + 16,
        "buffers": 24,
    }


def test_master_weights_are_the_only_weights_that_fully_shard_keeps() -> None:
    kept = 4 * 5 + 4 + 2 * 7 + 2
    assert state(3, 2, precision="bf16_master") == {
        "params": 0,
        "master": 4 * kept,
        "grads": 4 * kept,
        "optimizer": 8 * kept + 16,
        "buffers": 24,
    }


def test_frozen_parameters_have_neither_gradients_nor_optimizer_state() -> None:
    frozen = cnn_model(parameters=[Parameter("w", [10], True, 0), Parameter("f", [100], False, 0)])
    bytes_by_kind = predict_state(cell(0, 2, model=frozen))
    assert bytes_by_kind == {"params": 440, "master": 0, "grads": 40, "optimizer": 84, "buffers": 0}


def test_an_engine_without_a_theory_has_no_prediction() -> None:
    record = cell(2, 2, engine={"name": "unheard_of"})
    assert predict_state(record) is None
    assert predict_transient(record) is None
    assert predict_sent(record) is None
    assert predict_paper(record) is not None, "the paper's formulas know no engine"


def test_a_cell_that_never_built_its_model_has_no_prediction() -> None:
    assert predict_state(bare("failed", "no model")) is None


def test_bytes_sent_follow_the_collectives_of_each_stage() -> None:
    half = 0.5 * 4 * P  # f·P·b at N=2
    sent = [predict_sent(cell(stage, 2, model=MODEL)) for stage in range(4)]
    assert sent == [2 * half, 3 * half, 2 * half, 3 * half]
    assert predict_sent(cell(0, 1, model=MODEL)) == 0
    assert predict_sent(cell(3, 2, model=MODEL, accumulate=2)) == (2 * 2 + 1) * half


def test_deepspeed_all_reduces_each_micro_batchs_gradients_at_stage_2_and_gathers_what_it_trained() -> None:
    parameters = [Parameter("0.weight", [7, 5], True, 0), Parameter("1.weight", [3, 7], False, -1)]
    model, half = cnn_model(parameters=parameters), 0.5 * 4 * 35

    def sent(stage: int, **settings: object) -> float | None:
        return predict_sent(cell(stage, 2, model=model, engine__name="deepspeed", **settings))

    gathered = 0.5 * 4 * 36  # 35 elements, padded to a multiple of 2N
    assert [sent(stage) for stage in range(3)] == [2 * half, 2 * half + gathered, 2 * half + gathered]
    assert [sent(stage, accumulate=2) for stage in range(3)] == [2 * half, 2 * half + gathered, 4 * half + gathered]
    assert sent(3) == 0.5 * 4 * (36 + 2 * (36 + 22))  # each parameter padded to a multiple of N


def test_whole_parameters_are_transient_at_stage_2_and_two_units_at_stage_3() -> None:
    padded = {0: 8 * 5 + 8, -1: 4 * 7 + 4}  # rows padded to a multiple of N=2
    whole, largest = sum(padded.values()), 48
    assert predict_transient(cell(0, 2, model=MODEL)) == 0
    assert predict_transient(cell(2, 2, model=MODEL)) == 4 * (whole + 2 * largest)
    assert predict_transient(cell(3, 2, model=MODEL)) == 4 * (whole + 2 * largest), "two units are all there are"


def test_the_papers_example_of_7_5_billion_parameters_on_64_gpus() -> None:
    size = [paper_state(7_500_000_000, stage, 64, param=2, grad=2, optimizer=12) / 1e9 for stage in range(4)]
    assert [round(one, 1) for one in size] == [120.0, 31.4, 16.6, 1.9]


def test_the_papers_volumes_are_two_two_two_and_three_times_the_model() -> None:
    volume = [paper_sent(1000, stage, 1_000_000, param=2, grad=2) / 2000 for stage in range(4)]
    assert [round(one, 3) for one in volume] == [2.0, 2.0, 2.0, 3.0]


def test_without_a_formula_for_the_host_nothing_that_a_cpu_counts_there_is_predicted() -> None:
    settings = {"engine__name": "deepspeed", "engine__offload_device": "cpu", "offload": "optimizer"}
    with_formula, without = (cell(1, 2, model=MODEL, precision=name, **settings) for name in ("fp32", "bf16"))
    assert predict_counted_host(with_formula) and predict_rest(with_formula)
    host = offloaded(without)
    assert predict_state(without) and host and host.predicted is None
    assert (host.counted_predicted_bytes, predict_rest(without)) == (None, None)
    assert memory(without).counted_predicted_bytes is None
    without.resolved["device"] = "cuda"
    assert predict_counted_host(without) == 0


def test_muon_needs_the_directions_of_one_bucket_whole() -> None:
    """256 x 64 elements in bf16; at stage 1 also the gradients received, (N-1)/N of each bucket that flies, in fp32."""
    model = cnn_model(parameters=[Parameter("0.weight", [256, 64], True, 0, hidden_matrix=True)])
    settings = {"engine__name": "native", "optimizer": "muon"}
    assert predict_transient(cell(0, 2, model=model, **settings)) == 2 * 256 * 64
    assert predict_transient(cell(1, 2, model=model, **settings)) == max(256 * 64 * 4 // 2, 2 * 256 * 64)
    assert predict_transient(cell(0, 2, model=model, engine__name="native")) == 0


def test_a_quantized_element_is_sent_as_a_byte_and_each_block_has_a_scale() -> None:
    """On 4 ranks 1,000 elements have shards of 256: one block each."""
    model = cnn_model(parameters=[Parameter("0.weight", [1000], True, 0)])
    whole, packed = 4 * 1024, 1024 + 4 * 4

    def sent(stage: int, quantize: str, **settings: object) -> float | None:
        return predict_sent(cell(stage, 4, model=model, quantize=quantize, **{"engine__name": "native"} | settings))

    assert sent(3, "none") == 0.75 * 3 * whole
    assert sent(3, "weights") == 0.75 * (2 * packed + whole)
    assert sent(3, "gradients") == 0.75 * (2 * whole + packed)
    assert sent(3, "weights_and_gradients", accumulate=2) == 0.75 * 2 * 3 * packed
    assert sent(2, "gradients", accumulate=2) == 0.75 * (2 * packed + whole)
    assert sent(1, "gradients", precision="bf16") == 0.75 * (packed + whole / 2)
    assert sent(3, "weights", engine__name="deepspeed") is None, "no formula was checked"


def test_a_second_copy_is_kept_by_its_ranks_and_replaces_all_gathers_but_the_first() -> None:
    parameters = [Parameter("0.weight", [1000], True, 0), Parameter("1.weight", [1000], False, 1)]
    model, whole = cnn_model(parameters=parameters), 4 * 1024

    def copied(**settings: object) -> Record:
        named: dict[str, object] = {"engine__name": "native", "secondary_shard_size": 2}
        return cell(3, 4, model=model, **named | settings)

    params = [(predict_state(copied(**settings)) or {})["params"] for settings in ({}, {"quantize": "weights"})]
    assert params == [2 * whole // 4 + 2 * whole // 2, 2 * whole // 4 + 2 * (1024 + 16) // 2]
    assert predict_sent(copied()) == 0.75 * (whole + whole) + 0.5 * (whole + 2 * whole)
    assert predict_sent(copied(accumulate=2)) == 0.75 * (2 * whole + whole) + 0.5 * (3 * whole + 4 * whole)
    assert predict_sent(copied(engine__name="deepspeed")) is None, "no formula was checked"


def test_quantized_buckets_are_sent_and_received_packed_in_addition_to_what_is_collected_and_gathered() -> None:
    model = cnn_model(parameters=[Parameter("0.weight", [1000], True, 0)])
    whole, packed = 4 * 1024, 1024 + 4 * 4

    def needed(quantize: str) -> int | None:
        return predict_transient(cell(3, 4, model=model, engine__name="native", quantize=quantize))

    assert needed("none") == 3 * whole // 4 + whole + whole
    assert needed("gradients") == 2 * packed + 4 * 256 + whole + whole
    assert needed("weights") == 3 * whole // 4 + whole + whole + packed + 4 * 256


def test_a_piece_of_a_shard_is_quantized_in_fp32_and_a_sum_in_bf16_is_made_there_too() -> None:
    """Shards of 100,032 elements: on a CPU, pieces of 65,536."""
    model = cnn_model(parameters=[Parameter("0.weight", [200_064], True, 0)])
    packed = 2 * (100_032 + 4 * 391)

    def room(quantize: str, precision: str, device: str) -> int:
        record = cell(3, 2, model=model, engine__name="native", quantize=quantize, precision=precision)
        record.resolved["device"] = device
        needed, width = predict_transient(record), 4 if precision == "fp32" else 2
        assert needed is not None
        gradients = 2 * packed if quantize == "gradients" else width * 100_032
        return needed - gradients - 2 * width * 200_064 - (packed if quantize == "weights" else 0)

    assert [room("weights", precision, "cpu") for precision in ("fp32", "bf16")] == [4 * 65_536] * 2
    assert [room("gradients", precision, "cpu") for precision in ("fp32", "bf16")] == [4 * 65_536, 8 * 65_536]
    assert [room("weights", precision, "cuda") for precision in ("fp32", "bf16")] == [4 * 100_032] * 2
    assert [room("gradients", precision, "cuda") for precision in ("fp32", "bf16")] == [4 * 100_032, 8 * 100_032]


def test_the_papers_prediction_ignores_padding_and_counters() -> None:
    assert predict_paper(cell(3, 2, model=MODEL)) == (16 * P / 2, 0.5 * 12 * P)
    assert predict_paper(cell(1, 4, model=MODEL, precision="bf16_master")) == (4 * P + 12 * P / 4, 0.75 * 4 * P)
