"""No process outside this machine can reach a sweep."""

from __future__ import annotations

import contextlib
import time

import psutil

from tests.broken_sweep import Broken


def test_every_socket_of_a_sweep_listens_on_loopback(sweep: Broken) -> None:
    listening: set[str] = set()
    process = sweep.start("engine=native,parameter_server", "repeats=3", "steps=30", "stage=0")

    def listens() -> bool:
        with contextlib.suppress(psutil.Error):
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for member in family:
                with contextlib.suppress(psutil.Error):
                    for connection in member.net_connections("inet"):
                        if connection.status == psutil.CONN_LISTEN:
                            listening.add(f"{connection.laddr.ip} {len(family)}")
        return process.poll() is not None

    while not listens():
        time.sleep(0.05)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert {entry.split()[0] for entry in listening} <= {"127.0.0.1", "::1"}
    assert any(int(entry.split()[1]) >= 4 for entry in listening)  # seen while ranks ran
