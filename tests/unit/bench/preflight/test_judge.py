"""Slow and different hosts are named with their numbers; what differs by chance or on both ends of a link is not."""

from __future__ import annotations

from typing import Any

import pytest

from bench.preflight import judge
from results.health import HostHealth, HostLink


def links(hosts: int, slow_sender: int | None = None, late: int | None = None) -> list[HostLink]:
    return [
        HostLink(
            one,
            other,
            latency_s=500e-6 if late in (one, other) else 50e-6,
            bytes_per_s=25e6 if one == slow_sender else 1.25e9,
        )
        for one in range(hosts)
        for other in range(hosts)
        if one != other
    ]


def words(slow: list[list[judge.Slowness]]) -> list[list[str]]:
    return [[one.words for one in figures] for figures in slow]


def test_a_host_that_computes_slower_is_named_with_its_rate() -> None:
    slow = judge.slow_devices([[20e9], [9e9], [21e9]])
    assert words(slow) == [[], ["matrix products at 9 GFLOP/s, median of the others 20.5 GFLOP/s"], []]
    assert slow[1][0].share == pytest.approx(9 / 20.5)
    assert words(judge.slow_devices([[20e9], [18e9]])) == [[], []]


def test_one_slow_gpu_of_a_host_is_named_by_its_number() -> None:
    slow = judge.slow_devices([[400e12, 400e12], [400e12, 200e12]])
    assert words(slow) == [[], ["device 1: matrix products at 200 TFLOP/s, median of the others 400 TFLOP/s"]]


def test_a_slow_sender_is_named_and_those_that_receive_from_it_are_not() -> None:
    slow = judge.slow_links(3, links(3, slow_sender=2))
    assert words(slow) == [[], [], ["sends at most 200 Mbit/s, median of the others 10 Gbit/s"]]


def test_a_distant_host_is_named_by_its_latency() -> None:
    assert words(judge.slow_links(4, links(4, late=0))) == [
        ["latency of at least 500 µs, median of the others 50 µs"],
        [],
        [],
        [],
    ]


def test_two_hosts_have_one_link_which_blames_neither() -> None:
    assert words(judge.slow_links(2, links(2, slow_sender=1))) == [[], []]


def test_the_host_with_another_version_is_named() -> None:
    environments: list[dict[str, Any]] = [
        {"python": "3.11.9", "packages": {"numpy": version}, "kernel": "Linux 6.1"} for version in ("2.4", "2.3", "2.4")
    ]
    assert judge.differences(environments) == [[], ["numpy is 2.3, on the others 2.4"], []]
    assert judge.differences(environments[:2]) == [[], ["numpy is 2.3, on the others 2.4"]]


def test_what_spoils_a_sweep_is_named() -> None:
    well = HostHealth("n1", clock_offset_s=1e-4, disk_free_bytes=2**40, shared_memory_free_bytes=2**33)
    assert judge.spoils(well) == []
    ill = HostHealth("n2", clock_offset_s=-12.5, disk_free_bytes=2**28, busy_gpus=["GPU 0 (97 % busy, 4 MiB used)"])
    assert judge.spoils(ill) == [
        "in use by another process: GPU 0 (97 % busy, 4 MiB used)",
        "disk has 0.25 GiB free; at least 5 GiB are needed",
        "its clock is 12.5 s behind the coordinator's; synchronize it (NTP)",
    ]
    assert judge.spoils(HostHealth("n3")) == ["did not answer in time"]
