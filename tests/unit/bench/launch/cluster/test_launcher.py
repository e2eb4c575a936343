"""The coordinator asks hosts between launches, and launches go to those that are not left out."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Iterator

import pytest

from bench.job import HostCheckJob, LaunchResult
from bench.launch.channel import Channel, Closed
from bench.launch.cluster import facts
from bench.launch.cluster import secret as secrets
from bench.launch.cluster.launcher import ClusterLauncher
from bench.launch.cluster.membership import Membership
from bench.measure.machine.torch_build import Machine
from bench.rank_results import HostCheckResult

SECRET = "s" * 32


def serve(port: int, index: int) -> None:
    """A host whose launches return its index."""
    channel = Channel(socket.create_connection(("127.0.0.1", port)))
    secrets.prove_as_host(channel, SECRET)
    described = {"name": f"n{index}", "address": "127.0.0.1", "interface": "lo", "cores": 1.0}
    channel.send({"index": index, **described, "digest": "", "lock_digest": ""})
    with contextlib.suppress(Closed, OSError):
        while "exit" not in (message := channel.receive()):
            if "preload" in message:
                channel.send({"machine": dataclasses.asdict(Machine("2.15.0", 0, None, 1.0)), "environment": {}})
            elif "clocks" in message:
                channel.send({"clocks": dataclasses.asdict(facts.clocks())})
            elif "job" in message:
                ranks = [dataclasses.asdict(HostCheckResult(flops_per_s=float(index), links=[]))]
                result = dataclasses.asdict(LaunchResult("ok")) | {"ranks": ranks}
                channel.send({"launch": message["launch"], "result": result})
    channel.close()


@pytest.fixture
def launcher() -> Iterator[ClusterLauncher]:
    members = Membership("127.0.0.1", 0, SECRET, [], 2)
    threads = [threading.Thread(target=serve, args=(members.port, index)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    with ClusterLauncher(members) as made:
        yield made
    for thread in threads:
        thread.join()


def test_a_launch_goes_to_the_hosts_that_are_left(launcher: ClusterLauncher) -> None:
    job = HostCheckJob(
        world_size=1, threads=1, deterministic=False, timeout_s=5, device="cpu", backend="gloo", precision="fp32"
    )
    assert [host.name for host in launcher.hosts] == ["n0", "n1"]
    assert launcher.launch(job).ranks[0].flops_per_s == 0.0
    launcher.leave_out([0])
    assert [host.name for host in launcher.hosts] == ["n1"]
    assert launcher.launch(job).ranks[0].flops_per_s == 1.0


def test_clocks_of_the_same_machine_agree_within_the_bound(launcher: ClusterLauncher) -> None:
    assert len(launcher.hosts) == 2
    offset = launcher.clock_offset(1)
    assert offset and abs(offset.monotonic_s) <= offset.bound_s
