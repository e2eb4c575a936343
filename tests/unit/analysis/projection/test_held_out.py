"""A projection predicts world sizes it has not seen, and knows how far off it may be."""

import random
import statistics
from dataclasses import replace
from functools import cache

import pytest

from analysis.projection.curve import ScalingCurve, curves
from analysis.projection.held_out import Projector, held_out, order_kept
from results.record import Record
from tests.simulated_training import Cluster, slower

CLUSTERS = {
    "a slow link": Cluster(bytes_per_s=2e7),
    "a fast link": Cluster(alpha_s=5e-5, bytes_per_s=1e9),
    "a long link": Cluster(alpha_s=2e-3, trees=True),
    "without overlap": Cluster(overlap=False, trees=True),
    "contention": Cluster(contention=0.4),
}


@cache
def projector(name: str) -> Projector:
    cluster = CLUSTERS[name]
    usable, rejected = curves([cluster.record(stage, ranks) for stage in (0, 1, 2, 3) for ranks in (1, 2, 4, 8)])
    assert len(usable) == 4, rejected
    return Projector(usable)


def truth(name: str, stage: int, ranks: int) -> float:
    record = CLUSTERS[name].record(stage, ranks, launches=2)
    return statistics.median(step for launch in record.launches for step in launch.step_times_s())


@pytest.mark.parametrize("name", CLUSTERS)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_eight_times_as_many_ranks_are_predicted_within_a_twentieth(name, stage):
    projected = projector(name).at(stage, 64)
    assert projected.step_s == pytest.approx(truth(name, stage, 64), rel=0.05)


@pytest.mark.parametrize("name", CLUSTERS)
@pytest.mark.parametrize("ranks", [16, 32, 64])
def test_the_band_holds_the_truth(name, ranks):
    for stage in (0, 1, 2, 3):
        projected = projector(name).at(stage, ranks)
        assert projected.low_s <= truth(name, stage, ranks) <= projected.high_s


def test_the_check_predicts_the_largest_world_size_from_the_others():
    checked = projector("a slow link").checked
    assert [(one.projected.ranks, one.fitted_to) for one in checked] == [(8, 4)] * 4
    assert max(abs(one.error) for one in checked) < 0.02
    assert order_kept(checked)[0] == order_kept(checked)[1] > 0


def test_a_model_that_is_wrong_widens_its_band():
    """Collectives that slow down from eight ranks on, as a congested switch's do."""
    right, wrong = projector("a slow link"), Projector([*projector("a slow link").curves])
    slowed = []
    for curve in wrong.curves:
        record = curve.records[8]
        launches = [slower(launch, 1.3) for launch in record.launches]
        slowed.append(replace(curve, records=curve.records | {8: replace(record, launches=launches)}))
    wrong = Projector(slowed)
    assert statistics.median(abs(one.error) for one in wrong.checked) > 0.15
    for stage in (1, 2, 3):
        one, other = right.at(stage, 64), wrong.at(stage, 64)
        assert other.high_s / other.low_s > 1.5 * one.high_s / one.low_s


def test_hosts_have_links_inside_and_between_that_are_fitted_apart():
    cluster = Cluster(alpha_s=2e-5, bytes_per_s=1e9, per_host=2, between_alpha_s=4e-4, between_bytes_per_s=8e7)
    usable, _ = curves([cluster.record(stage, ranks, launches=3) for stage in (0, 2) for ranks in (1, 2, 4, 8)])
    there = Projector(usable)
    for place, stage in enumerate((0, 2)):
        (launch,) = cluster.record(stage, 32, launches=1).launches
        true_s, projected = statistics.median(launch.step_times_s()), there.at(place, 32)
        assert projected.low_s <= true_s <= projected.high_s
        assert projected.step_s == pytest.approx(true_s, rel=0.1)


def test_the_largest_size_is_held_out_where_only_one_is_at_most_half_of_it():
    usable, _ = curves([Cluster().record(0, ranks, launches=3) for ranks in (2, 3, 4)])
    assert [(one.projected.ranks, one.fitted_to) for one in held_out(usable)] == [(4, 3)]


def test_two_world_sizes_are_too_few_to_hold_one_out():
    usable, _ = curves([Cluster().record(0, ranks) for ranks in (1, 2, 4)])
    assert held_out([usable[0].within(2)]) == []


def test_the_largest_held_out_size_lies_in_the_band_as_often_as_it_says():
    """Launches that differ by 3 % each, as on a shared machine: 16 sweeps, 90 % bands."""
    inside = [one.is_inside for seed in range(8) for one in held_out(_noisy(seed))]
    assert len(inside) == 16
    assert sum(inside) >= 13


def _noisy(seed: int) -> list[ScalingCurve]:
    generator = random.Random(seed)
    records: list[Record] = []
    for stage in (1, 3):
        for ranks in (1, 2, 4, 8):
            record = Cluster(bytes_per_s=5e7).record(stage, ranks, seed=seed, steps=4)
            launches = [slower(launch, generator.lognormvariate(0, 0.03)) for launch in record.launches]
            records.append(replace(record, launches=launches))
    return curves(records)[0]
