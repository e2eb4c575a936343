"""A fit recovers what the links were, and says when measurements do not tell."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis.projection.curve import curves
from analysis.projection.fit import MINIMA, Fitted, fit
from results.launches import Collective
from tests.simulated_training import Cluster


def fits(**changes: Any) -> list[Fitted]:
    cluster = Cluster(**changes)
    return fit(curves([cluster.record(stage, ranks, launches=3) for stage in (0, 2) for ranks in (1, 2, 4, 8)])[0])


@pytest.mark.parametrize(("alpha_s", "bytes_per_s"), [(2e-4, 1e8), (3e-3, 2e7)])
def test_latency_and_bandwidth_are_recovered(alpha_s, bytes_per_s):
    line = fits(alpha_s=alpha_s, bytes_per_s=bytes_per_s, overlap=False)[0].fabric.inside
    assert line.alpha_s == pytest.approx(alpha_s, rel=0.05)
    assert 1 / line.s_per_byte == pytest.approx(bytes_per_s, rel=0.05)


def test_contention_is_recovered_where_communication_is_hidden():
    assert fits(contention=0.4)[0].costs(1).contention == pytest.approx(0.4, abs=0.08)


def test_layers_that_sleep_have_no_contention():
    assert fits()[0].costs(0).contention == 0.0


@pytest.mark.parametrize("trees", [True, False])
def test_the_algorithm_of_an_all_reduce_is_identified_where_latency_dominates(trees):
    (only,) = fits(alpha_s=3e-3, layer_bytes=4096, trees=trees, overlap=False)
    assert only.trees is trees


def test_both_algorithms_stay_where_they_take_the_same_time():
    assert {one.trees for one in fits(alpha_s=1e-6)} == {True, False}


def test_replicas_of_hybrid_sharding_may_reduce_along_a_tree():
    records = [Cluster(alpha_s=1e-6).record(3, ranks, launches=2, steps=4) for ranks in (2, 4, 8)]
    for record in records:
        record.config["shard_size"] = 2
        ranks = record.config["gpus"]
        shard = [replace(call, group_size=2) for call in record.collectives or []]
        replicas = [Collective("all_reduce", "float32", 1 << 17, ranks // 2, 8)] if ranks > 2 else []
        record.collectives = shard + replicas
    assert {one.trees for one in fit(curves(records)[0])} == {True, False}


def test_hidden_communication_leaves_the_bandwidth_uncertain():
    (first, *_), (slow, *_) = fits(alpha_s=1e-6, bytes_per_s=1e10), fits(bytes_per_s=2e7, overlap=False)
    assert first.draws[:, 1].std() > 3 * slow.draws[:, 1].std()


@pytest.mark.parametrize(("minima", "holds"), [(MINIMA, True), (1, False)])
def test_draws_come_from_every_minimum_that_data_leave_open(minima, holds, monkeypatch):
    """Two sizes, one of which communicates: a slow link, or a latency that no network has."""
    monkeypatch.setattr("analysis.projection.fit.MINIMA", minima)
    cluster = Cluster(alpha_s=1e-4, bytes_per_s=6e5, layer_bytes=65536, forward_s=0.2, backward_s=0.4, noise=0.001)
    whole = curves([cluster.record(stage, ranks, launches=3) for stage in (0, 3) for ranks in (1, 2, 16)])[0]
    some, *_ = fit([curve.within(2) for curve in whole])
    for at, curve in enumerate(whole):
        low, high = np.quantile(some.drawn_s(at, 16), (0.05, 0.95))
        assert (low <= curve.step_s(16).value <= high) == holds
