"""Bytes on the wire, from counters whose texts are known."""

from __future__ import annotations

import math
import socket
from pathlib import Path

import pytest

from analysis.metrics.traffic import wire_bytes
from bench.measure.communication import interface_bytes
from bench.measure.communication.interface_bytes import Interface, interface_of
from bench.network.link import INTERFACE, Link
from bench.placement import Placement, Slice
from tests.fakes import cell, launch

DEV = """Inter-|   Receive              |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls
    lo: 9 9 0 0 0 0 0 0 1000000 20 0 0 0 0 0 0
  lab0: 8 8 0 0 0 0 0 0 5 1 0 0 0 0 0 0
"""


def test_headers_and_what_was_sent_again_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev").write_text(DEV)
    monkeypatch.setattr(interface_bytes, "NET", tmp_path)
    monkeypatch.setattr(interface_bytes, "has_ethernet", lambda name: name == "lo")
    monkeypatch.setattr(interface_bytes, "sent_again", lambda *, on_loopback: 3000 if on_loopback else 2)
    assert Interface("lo").sent_bytes() == 1_000_000 - 20 * (14 + 52) - 3000
    assert Interface("lo", reads=False).sent_bytes() == -3000
    assert Interface("lab0").sent_bytes() == 5 - 52 - 2
    for reads in (True, False):
        with pytest.raises(ValueError, match="no counters of the interface eth0"):
            Interface("eth0", reads=reads).sent_bytes()
    monkeypatch.setattr(interface_bytes, "NET", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        Interface("lo").sent_bytes()


def test_what_was_sent_again_is_read_from_own_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others on the machine send again, on whatever interface, is none of ours."""
    assert interface_bytes.retransmitted(bytes(interface_bytes.BYTES_RETRANS) + (77).to_bytes(8, "little")) == 77
    assert interface_bytes.retransmitted(bytes(interface_bytes.BYTES_RETRANS)) == 0
    monkeypatch.setattr(interface_bytes, "retransmitted", lambda tcp_info: len(tcp_info))
    with socket.create_server(("127.0.0.1", 0)) as server:
        before = interface_bytes.sent_again(on_loopback=True)
        with socket.create_connection(server.getsockname()) as one, server.accept()[0] as other:
            other.sendall(one.recv(0) + b"x")
            assert interface_bytes.sent_again(on_loopback=True) - before == 2 * (interface_bytes.BYTES_RETRANS + 8)
            assert one.recv(1) == b"x", "asked without harm"


def test_an_interface_has_its_kind() -> None:
    assert interface_bytes.has_ethernet("lo")


def test_each_interface_of_a_launch_is_read_once() -> None:
    places = [Placement(local_rank=rank, local_ranks=3) for rank in range(3)]
    assert [interface_of(rank, 3, None, place) for rank, place in enumerate(places)] == [
        Interface("lo", rank == 0) for rank in range(3)
    ]

    def readers(ranks: int) -> list[bool]:
        interfaces = [interface_of(rank, ranks, Link(None, 0.0, 2), Placement()) for rank in range(ranks)]
        assert {interface.name for interface in interfaces} == {INTERFACE}
        return [interface.reads for interface in interfaces]

    assert readers(4) == [True, False, True, False]
    assert readers(2) == [True, True]


def test_between_hosts_the_first_rank_of_each_reads_the_interface_to_the_others() -> None:
    part = Slice([2, 2], host=1, interface="eth7")
    assert part.numbers == [2, 3]
    interfaces = [interface_of(rank, 4, None, part.placement(rank)) for rank in part.numbers]
    assert interfaces == [Interface("eth7", reads=True), Interface("eth7", reads=False)]


def test_a_steps_bytes_are_shared_out_to_ranks_and_the_median_over_launches() -> None:
    launches = [launch(at, [[0.01] * 4] * 2) for at in range(3)]
    for one, sent in zip(launches, (8e6, 9e9, 16e6), strict=True):
        one.conditions["wire_sent_bytes"] = sent
    assert wire_bytes(cell(0, 2, launches)) == 16e6 / 4 / 2
    assert math.isnan(wire_bytes(cell(0, 1, [launch(0, [[0.01] * 4])])))
