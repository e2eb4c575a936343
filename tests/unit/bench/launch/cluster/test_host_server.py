"""A host server without a coordinator ends with the reason; one that is terminated gives the coordinator time."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from bench.launch.cluster import host_server


def test_a_host_that_reaches_no_coordinator_prints_the_last_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host_server, "FIRST_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert host_server.HostServer("127.0.0.1", port, 1, "secret").run() == host_server.LOST_STATUS
    line = capsys.readouterr().err
    assert f"no connection to the coordinator at 127.0.0.1 port {port}: " in line and "refused" in line


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
