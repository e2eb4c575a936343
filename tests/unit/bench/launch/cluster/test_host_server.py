"""A host server without a coordinator ends with the reason; one that is terminated gives the coordinator time."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import queue
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.launch.channel import Channel
from bench.launch.cluster import host_server
from bench.launch.cluster import secret as secrets
from bench.measure.machine import environment, process_stat
from bench.measure.machine.torch_build import Machine


def as_coordinator(listener: socket.socket) -> Channel:
    """Accepts a host that has the secret."""
    channel, proof = Channel(listener.accept()[0]), secrets.CoordinatorProof("secret")
    while not proof.is_complete:
        if (answer := proof.answer(channel.receive())) is not None:
            channel.send(answer)
    return channel


@contextlib.contextmanager
def serving(listener: socket.socket, **settings: Any) -> Iterator[list[int]]:
    """A host server in a thread, which has ended after the block; its exit status is then in the list."""
    statuses: list[int] = []
    server = host_server.HostServer("127.0.0.1", listener.getsockname()[1], 1, "secret", **settings)
    thread = threading.Thread(target=lambda: statuses.append(server.run()), daemon=True)
    thread.start()
    yield statuses
    thread.join()


@pytest.mark.parametrize("begins_later", [False, True])
def test_a_host_that_reaches_no_coordinator_prints_the_last_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], begins_later: bool
) -> None:
    monkeypatch.setattr(host_server, "FIRST_S", 0.5)
    monkeypatch.setattr(host_server, "NOTE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = host_server.HostServer("127.0.0.1", port, 1, "secret", begins_later=begins_later)
    assert server.run() == host_server.LOST_STATUS
    line = capsys.readouterr().err
    assert f"no connection to the coordinator at 127.0.0.1 port {port}: " in line and "refused" in line
    assert (line.count(f"waiting for the coordinator at 127.0.0.1 port {port}: ") == 1) == begins_later


def test_a_host_joins_again_if_the_coordinator_closes_before_it_has_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, serving(listener):
        for _ in range(2):
            listener.accept()[0].close()
        channel = as_coordinator(listener)
        assert channel.receive()["index"] == 1
        channel.send({"exit": 0})


def test_a_host_ends_with_the_reason_that_the_coordinator_gives(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, serving(listener) as statuses:
        channel = as_coordinator(listener)
        assert channel.receive()["index"] == 1
        channel.send({"exit": 2, "reason": "it runs other code"})
    assert statuses == [2] and "host server: it runs other code" in capsys.readouterr().err


def test_an_interface_without_an_address_is_reported_with_those_that_have_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, serving(listener, interface="none0"):
        channel = as_coordinator(listener)
        problem = channel.receive()["warm_up_failure"]
        assert problem.startswith("cluster.interface=none0 has no address on this host; valid: ") and "lo" in problem
        channel.send({"exit": 0})


def test_a_server_that_is_started_again_has_the_files_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = "127.0.0.1", 1234, 1, "secret"
    killed = host_server.HostServer(*place)
    (host_server.scratch_of(*place) / "reference.pt").write_text("weights")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    other = host_server.HostServer("127.0.0.1", port, 1, "secret")
    assert other._scratch != killed._scratch
    again = host_server.HostServer(*place)
    assert (again._scratch / "reference.pt").read_text() == "weights" and again._scratch.stat().st_mode & 0o77 == 0
    assert "secret" not in str(again._scratch)
    other.run()
    assert not other._scratch.exists() and again._scratch.exists()
    again._owner.write_text("a server that joined later")
    monkeypatch.setattr(again, "_connected", lambda deadline: None)
    again.run()
    assert again._scratch.exists()


def test_a_host_joins_though_the_server_before_removed_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener, serving(listener):
        (folder,) = tmp_path.iterdir()
        folder.rmdir()
        channel = as_coordinator(listener)
        assert channel.receive()["index"] == 1
        assert folder.is_dir() and folder.stat().st_mode & 0o77 == 0
        channel.send({"exit": 0})
    assert not folder.exists()


class Server:
    """A fork server that a test speaks for."""

    def __init__(self, preload: object) -> None:
        ours, theirs = socket.socketpair()
        self.channel, self.speaks = Channel(ours), Channel(theirs)
        self.process = subprocess.Popen(["sleep", "600"])

    def last_line(self) -> str:
        return "no output"

    def close(self, *, kill: bool) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()


def test_a_fork_server_that_stays_stopped_is_replaced_and_the_host_is_described_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers, looks, described = queue.SimpleQueue[Server](), [True, False, True, True], list[object]()

    def server(preload: object) -> Server:
        made = Server(preload)
        servers.put(made)
        return made

    def collect(*facts: object) -> dict[str, str]:
        described.append(facts)
        return {"cpu": "a"}

    monkeypatch.setattr(host_server, "BEAT_S", 0.02)
    monkeypatch.setattr(host_server, "LOST_S", 600.0)
    monkeypatch.setattr(host_server, "ServerProcess", server)
    monkeypatch.setattr(environment, "collect", collect)
    monkeypatch.setattr(process_stat, "is_stopped", lambda pid: looks.pop(0))
    machine = dataclasses.asdict(Machine("2.15.0", 0, None, 1.0))
    with socket.create_server(("127.0.0.1", 0)) as listener, serving(listener):
        channel = as_coordinator(listener)
        assert channel.receive()["index"] == 1
        channel.send({"preload": ["torch"]})
        servers.get().speaks.send(machine)
        first = channel.receive()
        channel.send({"launch": 1, "job": {}, "slice": {}})
        beats = 0
        while (message := channel.receive()) == {"beat": 1}:
            beats += 1
        assert beats == 4 + 2 and not looks, "one per look, and two while the fork server is ended"
        assert message["result"]["status"] == "failed" and "was stopped by a signal" in message["result"]["reason"]
        servers.get().speaks.send(machine)
        assert channel.receive() == first == {"machine": machine, "environment": {"cpu": "a"}} and len(described) == 1
        channel.send({"exit": 0})


def test_the_silence_of_a_coordinator_counts_until_the_last_look() -> None:
    server, (ours, theirs) = host_server.HostServer("127.0.0.1", 1, 1, "secret"), socket.socketpair()
    with ours, theirs:
        server._heard, server._beat = 100.0, math.inf
        server._check_launch(Channel(ours), 100.0 + host_server.LOST_S)
        with pytest.raises(host_server.CoordinatorLost):
            server._check_launch(Channel(ours), 100.1 + host_server.LOST_S)


def test_a_host_that_is_terminated_stays_until_the_coordinator_has_ended_the_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_server, "LEAVE_S", 0.5)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    try:
        host_server.leave_late()
        stayed = False
        with pytest.raises(SystemExit) as ending:
            os.kill(os.getpid(), signal.SIGTERM)
            stayed = True
            signal.pause()
        assert stayed
        assert ending.value.code == 128 + signal.SIGTERM
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
