"""A host server without a coordinator ends with the reason; one that is terminated gives the coordinator time."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

from bench.launch.channel import Channel
from bench.launch.cluster import host_server
from bench.launch.cluster import secret as secrets


def test_a_host_that_reaches_no_coordinator_prints_the_last_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host_server, "FIRST_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert host_server.HostServer("127.0.0.1", port, 1, "secret").run() == host_server.LOST_STATUS
    line = capsys.readouterr().err
    assert f"no connection to the coordinator at 127.0.0.1 port {port}: " in line and "refused" in line


def test_a_host_joins_again_if_the_coordinator_closes_before_it_has_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_server, "FIRST_S", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = threading.Thread(
            target=host_server.HostServer("127.0.0.1", listener.getsockname()[1], 1, "secret").run, daemon=True
        )
        host.start()
        for _ in range(2):
            listener.accept()[0].close()
        channel = Channel(listener.accept()[0])
        secrets.prove_as_coordinator(channel, "secret")
        assert channel.receive()["index"] == 1
        channel.send({"exit": 0})
        host.join()


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
