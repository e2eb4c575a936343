"""The peak at another world size moves with the state that the stage shards."""

from dataclasses import replace

import pytest

from analysis.projection.curve import ScalingCurve
from analysis.projection.memory import peak_bytes
from analysis.theory import predict_host_state, predict_state, predict_transient
from results.record import Record
from tests.fakes import cell, measured

PREDICTED = (predict_state, predict_host_state)


def curve(stage: int) -> ScalingCurve:
    return ScalingCurve("a", {size: measured(cell(stage, size), peak_bytes=5_000_000) for size in (1, 2, 4)})


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_state_moves_by_the_formula_and_activations_stay(stage):
    there = curve(stage)
    before, after = (sum((predict_state(cell(stage, size)) or {}).values()) for size in (4, 16))
    own = (peak_bytes(there, 16) or 0) - (peak_bytes(there, 4) or 0)
    assert own == pytest.approx(after - before, abs=20_000)  # gathered units are padded to the world size
    assert (own < 0) is (stage == 3)  # at stage 1 the largest tensor is one rank's at any world size


def offloaded(size: int, **settings: object) -> Record:
    """A CPU's peak contains the host state."""
    record = measured(cell(1, size, offload="optimizer", **settings))
    in_host = sum((predict_host_state(record) or {}).values())
    record.memory = [replace(rank, peak_bytes=rank.peak_bytes + in_host) for rank in record.memory]
    return record


def test_on_a_cpu_the_host_state_is_divided_too():
    records = {size: offloaded(size, engine__name="native") for size in (1, 2, 4, 16)}
    state, host = ([sum((of(records[size]) or {}).values()) for size in (4, 16)] for of in PREDICTED)
    transient = [predict_transient(records[size]) or 0 for size in (4, 16)]
    there = ScalingCurve("a", {size: records[size] for size in (1, 2, 4)})
    moved = (peak_bytes(there, 16) or 0) - (peak_bytes(there, 4) or 0)
    assert moved == sum(after - before for before, after in (state, host, transient))
    assert host[1] < host[0] / 3


def test_without_a_formula_for_the_host_there_is_no_projection():
    settings = {"engine__name": "deepspeed", "engine__offload_device": "cpu", "precision": "bf16"}
    there = ScalingCurve("a", {size: offloaded(size, **settings) for size in (1, 2, 4)})
    assert peak_bytes(there, 16) is None


def test_a_measured_world_size_is_as_measured():
    assert peak_bytes(curve(3), 2) == max(rank.peak_bytes for rank in curve(3).records[2].memory)


def test_without_a_measured_peak_there_is_none():
    assert peak_bytes(ScalingCurve("a", {1: cell(), 2: cell(gpus=2)}), 8) is None
