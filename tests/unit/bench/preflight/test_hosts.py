"""A health check measures every host once, and leaves out those below the threshold, never all."""

from __future__ import annotations

from typing import Any

import pytest

from bench.checks import ConfigError
from bench.job import HostCheckJob, LaunchResult
from bench.launch.cluster.facts import ClockOffset, HostFacts
from bench.launch.launcher import Host
from bench.measure.machine.torch_build import Machine
from bench.preflight import hosts, table
from bench.preflight.__main__ import cluster_in
from bench.rank_results import HostCheckResult
from results.health import HostLink


class Cluster:
    """Hosts with given rates of matrix products."""

    def __init__(self, rates: list[float], status: str = "ok", gpus: int = 0) -> None:
        machine = Machine("2.15.0", gpus, "2.29.7", 3.0)
        self.hosts = [Host(f"n{at}", machine, 4.0, environment={"python": "3.11"}) for at in range(1, len(rates) + 1)]
        self._rates, self._status = rates, status
        self.left_out: list[int] = []
        self.jobs: list[HostCheckJob] = []

    def facts(self, place: int) -> HostFacts | None:
        return HostFacts(2**40, 2**33, []) if place < 2 else None

    def clock_offset(self, place: int) -> ClockOffset | None:
        return ClockOffset(0.001, 100.0, 0.0002) if place < 2 else None

    def leave_out(self, places: list[int]) -> None:
        self.left_out += places

    def launch(self, job: Any) -> LaunchResult[Any]:
        self.jobs.append(job)
        if self._status != "ok":
            return LaunchResult(self._status, "n2: host lost: no heartbeat")
        ranks = [rate for rate in self._rates for _ in range(job.ranks_by_host[0])]
        links = [HostLink(0, 1, 5e-5, 1e9)]
        return LaunchResult(
            "ok",
            ranks=[HostCheckResult(flops_per_s=rate, links=links if at == 0 else []) for at, rate in enumerate(ranks)],
        )


def test_numbers_of_all_hosts_are_in_the_result() -> None:
    cluster = Cluster([2e10, 2.1e10])
    health = hosts.check(cluster)
    (job,) = cluster.jobs
    assert (job.world_size, job.threads, job.device, job.backend, job.ranks_by_host) == (2, 4, "cpu", "gloo", [1, 1])
    assert [host.flops_per_s for host in health.hosts] == [[2e10], [2.1e10]]
    assert [host.clock_bound_s for host in health.hosts] == [0.0002, 0.0002]
    assert health.hosts[0].disk_free_bytes == 2**40 and not list(table.problems(health))
    assert table.summary(health) == "2 hosts; 20 GFLOP/s to 21 GFLOP/s per device; links 8 Gbit/s, 50 µs"


def test_each_gpu_is_a_device() -> None:
    cluster = Cluster([4e14, 4e14], gpus=2)
    health = hosts.check(cluster)
    (job,) = cluster.jobs
    assert (job.world_size, job.threads, job.device, job.backend) == (4, 1, "cuda", "nccl")
    assert [host.flops_per_s for host in health.hosts] == [[4e14, 4e14], [4e14, 4e14]]


def test_a_slow_host_is_named_and_left_out_below_the_threshold() -> None:
    slow = Cluster([2e10, 1e10])
    words = "matrix products at 10 GFLOP/s, median of the others 20 GFLOP/s"
    assert hosts.check(slow).hosts[1].problems == [words]
    assert slow.left_out == []
    health = hosts.check(slow, leave_out_below=0.6)
    assert slow.left_out == [1] and list(table.problems(health))[-1] == "n2 is left out (cluster.leave_out_below)"


def test_never_are_all_hosts_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    slowness = [hosts.judge.Slowness("slow", 0.1)]
    monkeypatch.setattr(hosts.judge, "slow_devices", lambda rates: [slowness for _ in rates])
    hosts.check(cluster := Cluster([1e10, 1e10]), leave_out_below=0.5)
    assert cluster.left_out == []


def test_a_check_that_fails_says_why_and_keeps_what_hosts_reported() -> None:
    health = hosts.check(Cluster([2e10, 2e10, 2e10], status="failed"))
    assert list(table.problems(health)) == [
        "peaks and links were not measured: failed: n2: host lost: no heartbeat",
        "n3: did not answer in time",
    ]


def test_the_preflight_takes_settings_of_the_cluster_only() -> None:
    cluster = cluster_in(["cluster=ssh", "cluster.hosts=[a,b]", "cluster.leave_out_below=0.5"])
    assert (cluster.kind, cluster.hosts, cluster.leave_out_below) == ("ssh", ["a", "b"], 0.5)
    for settings, message in (
        (["stage=1"], "stage=1 is not a setting of the preflight"),
        (["cluster=ssh"], "cluster=ssh needs cluster.hosts"),
        (["cluster=slrum"], "cluster=slrum is unknown"),
        (["cluster.leave_out_below=2"], "cluster.leave_out_below=2 is not valid"),
    ):
        with pytest.raises(ConfigError, match=message):
            cluster_in(settings)
