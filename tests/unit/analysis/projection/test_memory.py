"""The peak at another world size moves with the state that the stage shards."""

import pytest

from analysis.projection.curve import ScalingCurve
from analysis.projection.memory import peak_bytes
from analysis.theory import predict_state
from tests.fakes import cell, measured


def curve(stage: int) -> ScalingCurve:
    return ScalingCurve("a", {size: measured(cell(stage, size), peak_bytes=5_000_000) for size in (1, 2, 4)})


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_state_moves_by_the_formula_and_activations_stay(stage):
    there = curve(stage)
    before, after = (sum((predict_state(cell(stage, size)) or {}).values()) for size in (4, 16))
    own = (peak_bytes(there, 16) or 0) - (peak_bytes(there, 4) or 0)
    assert own == pytest.approx(after - before, abs=20_000)  # gathered units are padded to the world size
    assert (own < 0) is (stage == 3)  # at stage 1 the largest tensor is one rank's at any world size


def test_a_measured_world_size_is_as_measured():
    assert peak_bytes(curve(3), 2) == max(rank.peak_bytes for rank in curve(3).records[2].memory)


def test_without_a_measured_peak_there_is_none():
    assert peak_bytes(ScalingCurve("a", {1: cell(), 2: cell(gpus=2)}), 8) is None
