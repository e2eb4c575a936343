"""Ranks that fit one host stay on it; more are placed block by block."""

from __future__ import annotations

import pytest

from bench.engines.spec import EngineUnsupported
from bench.launch.launcher import Host
from bench.measure.machine.torch_build import Machine
from bench.plan.hosts import placed, ranks_by_host
from results.host_settings import Cluster
from results.settings import Config


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
