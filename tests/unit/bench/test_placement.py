"""A launch is cut into slices of consecutive ranks, one per host."""

from __future__ import annotations

from bench.placement import Placement, Slice


def test_on_one_machine_there_is_one_slice_with_all_processes() -> None:
    part = Slice([3], servers=2)
    assert part.numbers == [0, 1, 2, 3, 4]
    assert [part.placement(number).local_rank for number in part.numbers] == [0, 1, 2, 3, 4]
    assert part.placement(0) == Placement(host=0, local_rank=0, local_ranks=3, hosts=1, interface="")
    assert part.placement(0).one_clock


def test_uneven_slices_cover_all_ranks_once_and_servers_run_on_the_first_host() -> None:
    slices = [Slice([2, 1, 3], host, servers=1) for host in range(3)]
    assert [part.numbers for part in slices] == [[0, 1, 6], [2], [3, 4, 5]]
    assert [slices[2].placement(number).local_rank for number in (3, 4, 5)] == [0, 1, 2]
    assert not slices[1].placement(2).one_clock and slices[1].placement(2).leads_host
