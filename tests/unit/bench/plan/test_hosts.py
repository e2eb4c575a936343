"""Ranks that fit one host stay on it; more are placed block by block."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from bench.engines.spec import EngineUnsupported
from bench.launch.launcher import Host
from bench.measure.machine.torch_build import Machine
from bench.network import lab
from bench.plan.hosts import placed, ranks_by_host
from bench.plan.resolve import plan
from results.host_settings import Cluster, Network
from results.record import shard_size
from results.settings import Config
from tests.conftest import CPU_ONLY
from tests.fakes import cell as fake_cell


@pytest.mark.parametrize(
    ("ranks", "counts"), [(1, [1]), (4, [4]), (5, [4, 1]), (8, [4, 4]), (10, [4, 4, 2]), (12, [4, 4, 4])]
)
def test_hosts_are_filled_one_after_the_other(ranks: int, counts: list[int]) -> None:
    assert ranks_by_host(ranks, [4, 4, 4]) == counts


def test_more_ranks_than_all_hosts_hold_are_dealt_out_evenly() -> None:
    assert ranks_by_host(14, [4, 4, 4]) == [5, 5, 4]
    assert ranks_by_host(2, [1]) == [2]


def test_ranks_per_host_spreads_what_would_fit_one_host() -> None:
    assert ranks_by_host(4, [8, 8], 2) == [2, 2]
    assert ranks_by_host(3, [8, 8], 2) == [2, 1]
    assert ranks_by_host(2, [8, 8], 4) == [2]
    with pytest.raises(EngineUnsupported, match="ranks_per_host=1 needs 4 hosts for 4 ranks; there are 2; valid: at"):
        ranks_by_host(4, [8, 8], 1)


def test_ranks_per_host_holds_for_a_cluster_of_one_host_too() -> None:
    hosts = [Host("a", Machine("2.15.0", 0, None, 1.0), 8.0)]
    config = Config(gpus=4, cluster=Cluster(kind="slurm", nodes=1, ranks_per_host=2))
    with pytest.raises(EngineUnsupported, match="=2 needs 2 hosts for 4 ranks; there are 1; valid: at least 4"):
        placed(config, "cpu", hosts)
    config.cluster.ranks_per_host = None
    assert placed(config, "cpu", hosts) == [4]


def test_a_shard_of_the_model_state_may_follow_the_ranks_of_a_host(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "obstacle", lambda link: None)
    hosts = [Host(name, CPU_ONLY, 4.0, "eth0") for name in ("a", "b")]
    settings = {"engine": "torch", "stage": 3, "shard_size": 0}
    one, both, uneven, whole = (
        plan([make_config(**settings | {"gpus": gpus} | changes)], CPU_ONLY, 4, hosts)[0]
        for gpus, changes in ((4, {}), (8, {}), (6, {}), (8, {"shard_size": None}))
    )
    assert (one.spec().shard_size, both.spec().shard_size, whole.spec().shard_size) == (None, 4, None)
    assert (
        uneven.status == "unsupported"
        and "equally many ranks on each host, at least 2; there are 4, 2" in uneven.reason
    )
    assert both.id != whole.id
    emulated, one_rank_each, one_host = (
        plan([make_config(**settings | {"gpus": 4, "network": Network("lab", hosts=count)})], CPU_ONLY, 4)[0]
        for count in (2, None, 1)
    )
    assert emulated.spec().shard_size == 2
    assert one_rank_each.status == "unsupported"
    assert "there are 1, 1, 1, 1. Valid: another gpus, network.hosts, or null" in one_rank_each.reason
    for cell, expected in ((one, None), (both, 4), (whole, None), (emulated, 2), (one_host, None)):
        assert shard_size(fake_cell(config=dataclasses.asdict(cell.config), resolved=cell.resolved())) == expected


def test_a_second_copy_is_within_a_host(make_config: Callable[..., Config]) -> None:
    hosts = [Host(name, CPU_ONLY, 4.0, "eth0") for name in ("a", "b")]
    within, across, uneven, one = (
        plan([make_config(engine="native", stage=3, gpus=gpus, secondary_shard_size=size)], CPU_ONLY, 4, hosts)[0]
        for gpus, size in ((8, 4), (8, 8), (6, 3), (4, 4))
    )
    assert (within.status, one.status) == (None, None), within.reason
    for cell, counts in ((across, "4, 4"), (uneven, "4, 2")):
        assert cell.status == "unsupported"
        assert f"does not divide the ranks of each host ({counts}), so a copy would span hosts" in cell.reason
