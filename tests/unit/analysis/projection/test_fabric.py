"""The time of a collective has its closed form."""

from pathlib import Path

import pytest

from analysis.projection.fabric import Fabric, LinkTime, collective_s
from benchmarks.simgrid_oracle import TOPOLOGIES, predicted_s
from results.launches import Collective
from tests.simulated_training import Cluster

SIMULATED = Path(__file__).parents[4] / "docs/results/projection_against_simgrid.md"

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
    assert across == pytest.approx(1e-5 + 15 / 16 * 4 * MIB * 1e-9)


def test_sends_to_other_hosts_share_the_links_of_a_host():
    """Sums over rounds: k, 8 or N-k of the 8 ranks of a host send to others, 64 of 15 rounds and 448 of 63."""
    one, rails = (Fabric(LinkTime(0, 1e-12), LinkTime(0, 1e-9), 8, links_per_host=links) for links in (1, 8))
    assert collective_s(call("send", 16), "gloo", one) == pytest.approx(64 / 15 * 4 * MIB * 1e-9)
    assert collective_s(call("send", 64), "gloo", one) == pytest.approx(448 / 63 * 4 * MIB * 1e-9)
    assert collective_s(call("send", 64), "gloo", rails) == pytest.approx(4 * MIB * 1e-9)
    assert collective_s(call("send", 8), "gloo", one) == pytest.approx(4 * MIB * 1e-12)


def test_a_broadcast_doubles_within_a_host_and_then_shares_its_links():
    one, rails = (Fabric(LinkTime(1e-6, 1e-11), LinkTime(1e-5, 1e-9), 8, links_per_host=links) for links in (1, 8))
    inside, size = 3 * (1e-6 + 4 * MIB * 1e-11), 4 * MIB * 1e-9
    assert collective_s(call("broadcast", 64), "gloo", one) == pytest.approx(inside + 3 * (1e-5 + 8 * size))
    assert collective_s(call("broadcast", 64), "gloo", rails) == pytest.approx(inside + 3 * (1e-5 + size))


def test_an_all_to_all_costs_what_its_exchange_costs():
    hosts = Fabric(LinkTime(1e-6, 1e-12), LinkTime(1e-5, 1e-9), 8)
    sends = 15 * collective_s(call("send", 16, MIB // 16), "gloo", hosts)
    assert collective_s(call("all_to_all", 16), "gloo", hosts) == pytest.approx(sends)


def test_a_broadcast_counts_the_ranks_that_leave_a_host_of_six():
    """To 12 ranks: 0 to 1; 0, 1 to 2, 3; 0..3 to 4..7, of which 2 leave; 0..3 to 8..11, which all leave."""
    hosts = Fabric(LinkTime(0, 1e-12), LinkTime(0, 1e-9), 6)
    size = 4 * MIB
    assert collective_s(call("broadcast", 12), "gloo", hosts) == pytest.approx(size * (2e-12 + 2e-9 + 4e-9))


def test_rings_use_all_links_of_a_host():
    rails = Fabric(LinkTime(1e-6, 1e-11), LinkTime(1e-5, 1e-9), 8, links_per_host=8)
    expected_s = 1e-5 + 15 / 16 * 4 * MIB * 1e-9 / 8
    assert collective_s(call("all_gather", 16), "nccl", rails) == pytest.approx(expected_s)


@pytest.mark.parametrize(("hosts", "per_host"), [(2, 8), (8, 8), (16, 1), (1, 8), (4, 2)])
@pytest.mark.parametrize("between", [1e6, 1e8, 1e9, 1e10, 1e11])
def test_a_ring_takes_the_time_of_a_simulation_of_its_messages(hosts, per_host, between):
    """Parts are bound by latency along the ring, or by bytes over the slowest hop."""
    ranks, inside_s, between_s = hosts * per_host, 3e-6, 3e-5
    fabric = Fabric(LinkTime(inside_s, 1e-10), LinkTime(between_s, 1 / between), per_host)
    cluster = Cluster(
        layer_bytes=4 * MIB,
        alpha_s=inside_s,
        bytes_per_s=1e10,
        per_host=per_host,
        between_alpha_s=between_s,
        between_bytes_per_s=between,
    )
    simulated = cluster.rounds_s(ranks, ranks - 1)
    assert collective_s(call("all_gather", ranks), "nccl", fabric) == pytest.approx(simulated)


def test_replicas_of_hybrid_sharding_cross_hosts_and_share_their_links():
    """Eight ranks a shard group apart are on eight hosts, and eight such rings use the link of a host."""
    hosts = Fabric(LinkTime(1e-6, 1e-12), LinkTime(1e-5, 1e-9), 8, trees=False)
    replicas, together = (collective_s(call("all_reduce", 8), "nccl", hosts, stride) for stride in (8, 1))
    assert replicas == pytest.approx(2 * (7e-5 + 7 / 8 * 4 * MIB * 8e-9))
    assert together == pytest.approx(2 * (7e-6 + 7 / 8 * 4 * MIB * 1e-12))


def test_a_tree_of_nccl_is_a_chain_in_a_host_and_a_tree_among_hosts():
    hosts = Fabric(LinkTime(1e-6, 0.0), LinkTime(1e-5, 0.0), 8)
    assert collective_s(call("all_reduce", 64, 1), "nccl", hosts) == pytest.approx(2 * (7e-6 + 3e-5))
    assert collective_s(call("all_reduce", 8, 1), "nccl", hosts) == pytest.approx(2 * 7e-6)


def test_a_kind_without_a_formula_is_an_error():
    with pytest.raises(ValueError, match="no formula for the time of shuffle"):
        collective_s(call("shuffle", 2), "gloo", ONE)


def test_all_collectives_agree_with_a_simulation_that_shares_links_among_messages():
    """But for what meets among switches, and the shorter way under one of them, which the formulas do not have."""
    topologies = {topology.name: topology for topology in TOPOLOGIES}
    _, _, table = SIMULATED.read_text(encoding="utf-8").partition("## Table\n")
    rows = [line.strip("| ").split(" | ") for line in table.split("\n") if line.startswith("| ")][2:]
    assert len(rows) == len(topologies) * 4 * 2 * 2
    for name, kind, ranks, mebibytes, simulated_ms, *_ in rows:
        if not name.startswith("fat tree") or kind.startswith("all_"):
            ours_ms = 1000 * predicted_s(kind, int(ranks), int(mebibytes) * MIB, topologies[name])
            assert ours_ms == pytest.approx(float(simulated_ms), rel=0.03), (name, kind, ranks)
