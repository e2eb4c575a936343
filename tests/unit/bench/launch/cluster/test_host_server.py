"""A host server that reaches no coordinator ends with the reason."""

from __future__ import annotations

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
