"""The time of a collective has its closed form."""

import pytest

from analysis.projection.fabric import Fabric, LinkTime, collective_s
from results.launches import Collective

MIB = 1 << 20
ONE = Fabric(LinkTime(1e-3, 1e-9), trees=False)


def call(kind: str, ranks: int, elements: int = MIB) -> Collective:
    return Collective(kind, "float32", elements, ranks, 1)


@pytest.mark.parametrize("ranks", [2, 4, 64])
def test_a_ring_has_its_messages_and_its_bytes(ranks):
    share, size = (ranks - 1) / ranks, 4 * MIB
    ring = (ranks - 1) * 1e-3 + share * size * 1e-9
    assert collective_s(call("all_gather", ranks), "gloo", ONE) == pytest.approx(ring)
    assert collective_s(call("reduce_scatter", ranks), "nccl", ONE) == pytest.approx(ring)
    assert collective_s(call("all_reduce", ranks), "nccl", ONE) == pytest.approx(2 * ring)


def test_gloo_reduces_and_scatters_at_the_cost_of_an_all_reduce():
    assert collective_s(call("reduce_scatter", 4), "gloo", ONE) == collective_s(call("all_reduce", 4), "gloo", ONE)


def test_nccl_uses_a_tree_where_latency_dominates():
    with_trees = Fabric(ONE.inside)
    assert collective_s(call("all_reduce", 64, 1), "nccl", with_trees) == pytest.approx(2 * 6 * 1e-3, rel=1e-3)
    assert collective_s(call("all_reduce", 64, 1), "gloo", with_trees) == pytest.approx(2 * 63 * 1e-3, rel=1e-3)


def test_the_network_between_hosts_counts_once_the_group_spans_two():
    hosts = Fabric(LinkTime(1e-6, 1e-11), LinkTime(1e-5, 1e-9), 8)
    inside, across = (collective_s(call("all_gather", ranks), "nccl", hosts) for ranks in (8, 16))
    assert inside == pytest.approx(7e-6 + 7 / 8 * 4 * MIB * 1e-11)
    assert across == pytest.approx(15e-5 + 15 / 16 * 4 * MIB * 1e-9)


def test_sends_of_a_host_share_its_link():
    hosts = Fabric(LinkTime(0, 1e-12), LinkTime(0, 1e-9), 8)
    assert collective_s(call("send", 16), "gloo", hosts) == pytest.approx(8 * 4 * MIB * 1e-9)


def test_a_kind_without_a_formula_is_an_error():
    with pytest.raises(ValueError, match="no formula for the time of shuffle"):
        collective_s(call("shuffle", 2), "gloo", ONE)
