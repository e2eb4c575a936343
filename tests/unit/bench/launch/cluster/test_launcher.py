"""The coordinator asks hosts between launches, launches go to those that are not left out, and no host that cannot
come is waited for."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from bench import messages
from bench.job import HostCheckJob, LaunchResult
from bench.launch.channel import Channel, Closed
from bench.launch.cluster import arrival, facts, membership
from bench.launch.cluster import secret as secrets
from bench.launch.cluster.host_server import LOST_S, LOST_STATUS, NOT_RUN
from bench.launch.cluster.launcher import ClusterLauncher, LaunchInProgress
from bench.launch.cluster.membership import Membership
from bench.launch.cluster.starter import Loss, StartedElsewhere
from bench.launch.launcher import LaunchError
from bench.measure.machine.torch_build import Machine
from bench.rank_results import HostCheckResult

SECRET = "s" * 32


def join(port: int, index: int, instance: str = "first", /, **changes: object) -> Channel:
    channel = Channel(socket.create_connection(("127.0.0.1", port)))
    secrets.prove_as_host(channel, SECRET)
    described = {"name": f"n{index}", "address": "127.0.0.1", "interface": "lo", "cores": 1.0}
    described |= {"index": index, "instance": instance, "digest": "", "lock_digest": ""}
    channel.send(described | changes)
    return channel


def serve(port: int, index: int) -> None:
    """A host whose launches return its index."""
    channel = join(port, index)
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


def one_rank() -> HostCheckJob:
    return HostCheckJob(
        world_size=1, threads=1, deterministic=False, timeout_s=5, device="cpu", backend="gloo", precision="fp32"
    )


def test_a_launch_goes_to_the_hosts_that_are_left(launcher: ClusterLauncher) -> None:
    assert [host.name for host in launcher.hosts] == ["n0", "n1"]
    assert launcher.launch(one_rank()).ranks[0].flops_per_s == 0.0
    launcher.leave_out([0])
    assert [host.name for host in launcher.hosts] == ["n1"]
    assert launcher.launch(one_rank()).ranks[0].flops_per_s == 1.0


def test_clocks_of_the_same_machine_agree_within_the_bound(launcher: ClusterLauncher) -> None:
    assert len(launcher.hosts) == 2
    offset = launcher.clock_offset(1)
    assert offset and abs(offset.monotonic_s) <= offset.bound_s


@pytest.fixture
def half() -> Iterator[Membership]:
    """Two hosts are expected, and the first has joined."""
    members = Membership("127.0.0.1", 0, SECRET, [], 2)
    thread = threading.Thread(target=serve, args=(members.port, 0))
    thread.start()
    assert members.gather({0}, StartedElsewhere()) == set()
    yield members
    members.close(0)
    thread.join()


def test_a_host_that_is_lost_while_it_joins_is_named_without_waiting_for_all(
    half: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "BACK_S", 0.2)
    leaving = threading.Thread(target=lambda: join(half.port, 1).close())
    leaving.start()
    with pytest.raises(LaunchError, match=r"lost: n1 \(its host server ended"):
        _ = ClusterLauncher(half).hosts  # JOIN_S, which would outlast the test, is not waited for
    leaving.join()


class Ended(StartedElsewhere):
    """The start of each host failed."""

    def __init__(self, words: str) -> None:
        self._words = words

    def failure(self, index: int) -> str:
        return self._words


def test_hosts_whose_starter_has_ended_are_not_waited_for(half: Membership) -> None:
    launcher = ClusterLauncher(half, Ended("ssh b exited with status 255"))
    with pytest.raises(LaunchError, match=r"host 1 of 2 did not join: ssh b exited with status 255 \(joined: n0\)"):
        _ = launcher.hosts


def test_a_host_that_is_left_out_is_not_waited_for(half: Membership) -> None:
    launcher = ClusterLauncher(half, Ended("it would be waited for"))
    launcher.leave_out([1])
    assert [host.name for host in launcher.hosts] == ["n0"]
    assert launcher.launch(one_rank()).status == "ok"


def test_a_lost_host_is_used_again_once_it_has_joined_again(half: Membership) -> None:
    launcher = ClusterLauncher(half)
    lost = half.members[0]
    launcher.leave_out([1])
    half.lose(lost, "a test")
    again = threading.Thread(target=serve, args=(half.port, 0))
    again.start()
    assert launcher.launch(one_rank()).status == "ok"
    half.close(0)
    again.join()


class Restarting(StartedElsewhere):
    """Starts a host's server again, as a thread."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.threads: list[threading.Thread] = []

    def restart(self, index: int, loss: Loss) -> bool:
        self.threads.append(threading.Thread(target=serve, args=(self._port, index)))
        self.threads[-1].start()
        return True


def test_a_host_whose_server_ended_is_started_again(
    half: Membership, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(membership, "BACK_S", 0.0)  # by itself it would come too late
    starter = Restarting(half.port)
    launcher = ClusterLauncher(half, starter)
    launcher.leave_out([1])
    half.lose(half.members[0], "a test")
    assert launcher.launch(one_rank()).status == "ok"
    assert "n0: its host server ended; it is started again" in capsys.readouterr().err
    half.close(0)
    (thread,) = starter.threads
    thread.join()


def pump_until(members: Membership, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        members.pump(0.05)


def joined(members: Membership, index: int, instance: str) -> Channel:
    """A host server that has joined."""
    channels: list[Channel] = []
    joining = threading.Thread(target=lambda: channels.append(join(members.port, index, instance)))
    joining.start()
    pump_until(members, lambda: bool(channels) and not members._arrivals)
    joining.join()
    return channels[0]


def test_an_earlier_server_of_a_host_is_sent_away_and_the_same_one_may_join_again(half: Membership) -> None:
    servers = [joined(half, 1, instance) for instance in ("first", "first", "second")]
    assert half.members[1].instance == "second"
    assert "preload" in servers[0].receive()
    with pytest.raises(Closed):
        servers[0].receive()
    assert "preload" in servers[1].receive() and servers[1].receive()["exit"] == LOST_STATUS
    for server in servers:
        server.close()


def test_a_connection_that_proves_nothing_holds_nobody_up(
    half: Membership, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = [socket.create_connection(("127.0.0.1", half.port)) for _ in range(3)]
    silent[1].sendall(b"GET / HTTP/1.1\r\n\r\n")
    silent[2].sendall(b'{"nonce": "\\ud800"}\n{"proof": "\\ud800"}\n')
    launcher = ClusterLauncher(half)
    launcher.leave_out([1])
    for _ in range(3):
        assert launcher.launch(one_rank()).status == "ok"
    pump_until(half, lambda: len(half._arrivals) == 1)  # the silent one may still prove the secret
    printed = capsys.readouterr().err
    assert "what arrived is no message" in printed and "the host has another secret" in printed
    monkeypatch.setattr(arrival.Arrival, "is_late", True)
    half.pump(0.05)
    for connection in silent:
        with connection, contextlib.suppress(ConnectionResetError):
            while connection.recv(4096):
                pass


def test_silence_of_a_host_counts_until_the_last_look_and_ends_with_any_byte(half: Membership) -> None:
    channel, launch = joined(half, 1, "first"), LaunchInProgress(half, one_rank(), [1, 1], [0, 1], 1)
    launch._began, launch._began_s = {0, 1}, [0.0, 0.0]
    for member in half.members.values():
        member.heard_s = 100.0
    half.looked_s = 100.0 + LOST_S
    launch._note_losses()
    assert not launch._results, "what came after the last look is not read yet"
    channel.socket.sendall(b'{"launch": 1, "result"')
    pump_until(half, lambda: half.members[1].heard_s > 100.0)
    half.looked_s = half.members[1].heard_s + LOST_S
    launch._note_losses()
    assert launch._results.keys() == {0} and "no heartbeat for 5 s" in launch._results[0].reason
    channel.close()


def test_heartbeats_are_sent_between_results_that_take_long_to_read(
    half: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch, order = LaunchInProgress(half, one_rank(), [1], [0], 1), list[str]()
    launch._began, launch._beat = {0}, math.inf
    message = {"launch": 1, "result": dataclasses.asdict(LaunchResult("ok"))}

    def read(*_: object) -> LaunchResult[object]:
        order.append("read")
        launch._beat = -LOST_S  # it took long
        return LaunchResult("ok")

    monkeypatch.setattr(messages, "read_result", read)
    monkeypatch.setattr(half, "send", lambda member, sent: order.append(*sent))
    for _ in range(2):
        launch._results.clear()
        launch._take([(half.members[0], message)])
    assert order == ["read", "beat", "read"]


def test_of_too_many_connections_the_first_are_closed(half: Membership, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "MAX_ARRIVALS", 1)
    connections = [socket.create_connection(("127.0.0.1", half.port)) for _ in range(5)]
    pump_until(
        half, lambda: len(half._arrivals) == 3 and half.listener not in select.select([half.listener], [], [], 0)[0]
    )
    assert connections[0].recv(1) == b"" and connections[1].recv(1) == b""
    for connection in connections:
        connection.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"index": 7}, "it is host 7, and the sweep has hosts 0 to 1"), ({"new": 1}, "it runs other code")],
)
def test_a_host_that_cannot_take_part_ends_the_sweep_and_itself_with_the_reason(
    half: Membership, changes: dict[str, object], reason: str
) -> None:
    answers: list[object] = []

    def host() -> None:
        channel = join(half.port, 1, **changes)
        answers.append(channel.receive())
        channel.close()

    joining = threading.Thread(target=host)
    joining.start()
    with pytest.raises(LaunchError, match=rf"did not join: host n1 \(127\.0\.0\.1\) was refused: {reason}"):
        _ = ClusterLauncher(half).hosts
    joining.join()
    (answer,) = answers
    assert isinstance(answer, dict) and answer["exit"] == NOT_RUN and reason in answer["reason"]


def test_a_host_that_cannot_warm_up_is_named_with_the_reason(half: Membership) -> None:
    joining = threading.Thread(target=lambda: join(half.port, 1, warm_up_failure="cluster.interface=x has no address"))
    joining.start()
    with pytest.raises(LaunchError, match=r"n1: cluster\.interface=x has no address"):
        _ = ClusterLauncher(half).hosts
    joining.join()
