"""Bytes on the wire, from counters whose texts are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from analysis.comm import wire_bytes
from bench.measure import wire
from bench.measure.wire import Interface, interface_of
from bench.network import INTERFACE, Link
from tests.unit.test_analysis_fakes import cell, launch

DEV = """Inter-|   Receive              |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls
    lo: 9 9 0 0 0 0 0 0 1000000 20 0 0 0 0 0 0
  lab0: 8 8 0 0 0 0 0 0 5 1 0 0 0 0 0 0
"""
SNMP = "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm OutSegs RetransSegs InErrs\nTcp: 1 900 3 0\nUdp: InDatagrams\nUdp: 4\n"


def test_headers_and_what_was_sent_again_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev").write_text(DEV)
    (tmp_path / "snmp").write_text(SNMP)
    monkeypatch.setattr(wire, "NET", tmp_path)
    monkeypatch.setattr(wire, "largest_packet_bytes", lambda name: 1500)
    monkeypatch.setattr(wire, "has_ethernet", lambda name: name == "lo")
    assert Interface("lo").sent_bytes() == 1_000_000 - 20 * (14 + 52) - 3 * (1500 - 52)
    assert Interface("lab0").sent_bytes() == 5 - 52 - 3 * (1500 - 52)
    assert Interface("eth0").sent_bytes() is None
    monkeypatch.setattr(wire, "NET", tmp_path / "nowhere")
    assert Interface("lo").sent_bytes() is None


def test_an_interface_tells_its_kind() -> None:
    assert wire.has_ethernet("lo")
    assert wire.largest_packet_bytes("lo") == int(Path("/sys/class/net/lo/mtu").read_text())


def test_each_interface_of_a_launch_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    assert [interface_of(rank, 3, None) for rank in range(3)] == [Interface("eth7"), None, None]
    lab = Interface(INTERFACE)
    assert [interface_of(rank, 4, Link(None, 0.0, 2)) for rank in range(4)] == [lab, None, lab, None]
    assert [interface_of(rank, 2, Link(None, 0.0, 2)) for rank in range(2)] == [lab, lab]


def test_a_steps_bytes_are_shared_out_to_ranks_and_the_median_over_launches() -> None:
    launches = [launch(at, [[0.01] * 4] * 2) for at in range(3)]
    for one, sent in zip(launches, (8e6, 9e9, 16e6), strict=True):
        one.conditions["wire_sent_bytes"] = sent
    assert wire_bytes(cell(0, 2, launches)) == 16e6 / 4 / 2
    assert math.isnan(wire_bytes(cell(0, 1, [launch(0, [[0.01] * 4])])))
