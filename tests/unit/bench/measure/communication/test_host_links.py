"""Each two hosts are measured once, and no host is twice in a round."""

from __future__ import annotations

import pytest

from bench.measure.communication.host_links import rounds


@pytest.mark.parametrize("hosts", [1, 2, 3, 4, 7, 8])
def test_each_two_hosts_meet_once(hosts: int) -> None:
    pairs = [frozenset(pair) for one_round in rounds(hosts) for pair in one_round]
    assert len(pairs) == len(set(pairs)) == hosts * (hosts - 1) // 2
    for one_round in rounds(hosts):
        busy = [host for pair in one_round for host in pair]
        assert len(busy) == len(set(busy))
