"""A launch is ok if all its slices are; else it has the status and host of the likeliest cause."""

from __future__ import annotations

from typing import Any

from bench.job import LaunchResult
from bench.launch.cluster.merge import HOST_LOST, merged
from bench.launch.forkserver.outcome import STOPPED
from results.record import RankEnd

NAMES = ["n1", "n2"]


def ended(status: str, reason: str = "", cause_order: int = 0, rank: int = 0, **facts: Any) -> LaunchResult[Any]:
    return LaunchResult(status, reason, ends=[RankEnd(rank, "ended", "")], cause_order=cause_order, **facts)


def test_ranks_of_all_hosts_are_in_order() -> None:
    slices: dict[int, LaunchResult[Any]] = {
        1: LaunchResult("ok", ranks=["c"], total_s=2.0),
        0: LaunchResult("ok", ranks=["a", "b"], servers=[], total_s=1.0),
    }
    result = merged(slices, NAMES)
    assert (result.status, result.ranks, result.total_s) == ("ok", ["a", "b", "c"], 2.0)


def test_a_killed_rank_is_blamed_before_those_that_lost_their_peer() -> None:
    lost = ended("failed", "rank 0: RuntimeError: Connection closed by peer", cause_order=3)
    killed = ended("failed", "rank 2: killed by signal 9 (SIGKILL)", cause_order=0, rank=2, by_chance=True)
    result = merged({0: lost, 1: killed}, NAMES)
    assert result.reason == "n2: rank 2: killed by signal 9 (SIGKILL)" and result.by_chance
    assert [end.ending for end in result.ends] == ["on n1: ended", "on n2: ended"]


def test_a_lost_host_is_blamed_before_any_rank() -> None:
    result = merged(
        {0: ended("failed", "rank 0: killed", cause_order=0), 1: ended("failed", "host lost: x", HOST_LOST)}, NAMES
    )
    assert result.reason == "n2: host lost: x"


def test_a_timeout_without_a_stuck_rank_names_all_that_still_ran() -> None:
    slices = {
        0: ended("timeout", "rank 0, 1 still running after timeout_s=5", cause_order=STOPPED),
        1: ended("timeout", "rank 2, 3 still running after timeout_s=5", cause_order=STOPPED),
    }
    assert merged(slices, NAMES).reason == (
        "n1: rank 0, 1 still running after timeout_s=5; n2: rank 2, 3 still running after timeout_s=5"
    )
    slices[1] = ended("timeout", "rank 3 was stopped by a signal", cause_order=0)
    assert merged(slices, NAMES).reason == "n2: rank 3 was stopped by a signal"


def test_an_unsupported_setting_is_not_the_fault_of_a_host() -> None:
    slices = {
        0: ended("unsupported", "stage=3 is not supported", cause_order=2),
        1: ended("failed", "stopped", STOPPED),
    }
    assert merged(slices, NAMES).reason == "stage=3 is not supported"
