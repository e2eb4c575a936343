"""The parts of a step add up, and the slowest of N ranks is expected where order statistics put it."""

import random
from typing import Any

import pytest

from analysis.projection.curve import ScalingCurve
from analysis.projection.fabric import Fabric, LinkTime
from analysis.projection.model import Costs, Parts, StepModel, expected_maximum, normal_maximum
from results.launches import Collective
from tests.simulated_training import Cluster

FABRIC = Fabric(LinkTime(2e-4, 8e-9), trees=False)


def model(stage: int, **changes: Any) -> StepModel:
    cluster = Cluster(noise=0.0, **changes)
    return StepModel(ScalingCurve("a", {size: cluster.record(stage, size, launches=1, steps=2) for size in (1, 2, 4)}))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("ranks", [2, 8, 32])
def test_a_step_without_noise_takes_the_simulated_time(stage, overlap, ranks):
    cluster = Cluster(noise=0.0, overlap=overlap)
    alone, _ = cluster.step_s(stage, 1, random.Random(0))
    expected, _ = cluster.step_s(stage, ranks, random.Random(0))
    parts = model(stage, overlap=overlap).parts(ranks, Costs(alone, 1.0), FABRIC)
    assert parts.step_s == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("ranks", [2, 8, 32])
def test_a_step_with_contention_takes_the_simulated_time(stage, ranks):
    cluster = Cluster(noise=0.0, contention=0.3)
    alone, _ = cluster.step_s(stage, 1, random.Random(0))
    expected, _ = cluster.step_s(stage, ranks, random.Random(0))
    parts = model(stage, contention=0.3).parts(ranks, Costs(alone, 1.0, contention=0.3), FABRIC)
    assert parts.step_s == pytest.approx(expected, rel=0.005)


def test_an_exchange_of_sends_is_one_phase_per_unit_and_what_is_received_is_no_other():
    calls = [Collective(kind, "float32", 8192, 2, 12) for kind in ("recv", "send")]
    record = Cluster().record(3, 2, launches=1, steps=2)
    record.collectives = calls
    phases = StepModel(ScalingCurve("a", {2: record})).phases(2, 1.0, FABRIC)
    took_s = pytest.approx(2e-4 + 4 * 8192 * 8e-9)
    assert phases.forward == phases.backward_gathers == phases.reductions == [took_s] * 4
    assert phases.other == []


@pytest.mark.parametrize(
    ("quantize", "gathered", "reduced"),
    [("weights", "int8", "float32"), ("gradients", "float32", "int8")],
)
def test_where_one_of_them_is_quantized_its_exchanges_are_known_by_their_dtype(quantize, gathered, reduced):
    quantized = model(3)
    for record in quantized.curve.records.values():
        record.config["quantize"] = quantize
    calls = [Collective("send", gathered, 8192, 2, 8), Collective("send", reduced, 4096, 2, 4)]
    quantized.curve.records[2].collectives = calls
    phases = quantized.phases(2, 1.0, FABRIC)
    gather_s, reduce_s = (2e-4 + call.size_bytes * 8e-9 for call in calls)
    assert phases.forward == phases.backward_gathers == [pytest.approx(gather_s)] * 4
    assert phases.reductions == [pytest.approx(reduce_s)] * 4


def test_without_bytes_only_latency_is_left():
    slow, free = Fabric(LinkTime(2e-4, 8e-9), trees=False), Fabric(LinkTime(2e-4, 0.0), trees=False)
    parts, latency = (model(2, overlap=False).parts(8, Costs(0.05, 1.0), fabric) for fabric in (slow, free))
    assert latency.bandwidth_s == 0
    assert parts.latency_s == pytest.approx(latency.latency_s)
    assert parts.step_s - latency.step_s == pytest.approx(parts.bandwidth_s)


def test_the_bottleneck_of_a_doubling_is_what_grew_most_and_not_what_is_largest():
    """With strong scaling half of the time is ideal, so that what stays is in excess."""
    before = Parts(1.0, 0.2, 0.1, 0.02, 0.5, 0.0)
    assert before.bottleneck == "bandwidth"
    assert before.grown(Parts(1.0, 0.2, 0.1, 0.01, 0.5, 0.0), 1.0) == "latency"
    assert Parts(0.5, 0.2, 0.1, 0.02, 0.25, 0.0).grown(before, 0.5) == "fixed compute"


def test_strong_scaling_divides_compute_but_for_what_is_fixed():
    record = Cluster(noise=0.0).record(0, 1, launches=1, steps=2)
    record.config["scaling"] = "strong"
    parts = StepModel(ScalingCurve("a", {1: record, 2: record})).parts(1, Costs(1.0, 1.0, fixed=0.2), FABRIC)
    half = StepModel(ScalingCurve("a", {1: record, 2: record})).parts(1, Costs(1.0, 1.0, fixed=0.0), FABRIC)
    assert parts.compute_s + parts.fixed_s == pytest.approx(half.compute_s)
    assert parts.fixed_s == pytest.approx(0.2, rel=0.03)


@pytest.mark.parametrize("ranks", [2, 8, 64])
def test_the_expected_maximum_of_a_normal_sample_is_that_of_the_distribution(ranks):
    generator = random.Random(1)
    sample = sorted(generator.gauss(0, 1) for _ in range(4000))
    assert expected_maximum(sample, ranks) == pytest.approx(normal_maximum(ranks), abs=0.1)


def test_the_maximum_grows_beyond_the_sample():
    generator = random.Random(2)
    sample = sorted(generator.gauss(0, 1) for _ in range(40))
    assert expected_maximum(sample, 4096) > max(sample)


def test_waiting_shrinks_with_the_time_of_a_step():
    """With strong scaling a rank's own time shrinks, and by how much steps differ with it."""
    alone = StepModel(ScalingCurve("a", {1: Cluster(noise=0.1).record(0, 1, launches=1, steps=12)}))
    assert alone.straggler_s(8, 1.0, 0.0) > 0
    assert alone.straggler_s(8, 0.25, 0.0) == pytest.approx(alone.straggler_s(8, 1.0, 0.0) / 4)


def test_no_sample_has_no_maximum():
    assert expected_maximum([], 64) == 0.0
