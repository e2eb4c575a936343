"""Messages keep their bounds, however the network cuts them, and none waits where ``select`` cannot see it."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator

import pytest

from bench.launch.channel import Channel, Closed


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), theirs


def test_a_message_in_pieces_arrives_whole(pair: tuple[Channel, socket.socket]) -> None:
    channel, peer = pair
    data = json.dumps({"text": "two\nlines"}).encode() + b"\n"
    peer.sendall(data[:5])
    assert channel.received() == []
    peer.sendall(data[5:])
    assert channel.receive() == {"text": "two\nlines"}


def test_messages_that_arrive_together_are_all_received_at_once(pair: tuple[Channel, socket.socket]) -> None:
    channel, peer = pair
    peer.sendall(b'{"stop": 1}\n{"stop": 2}\n{"st')
    assert channel.received() == [{"stop": 1}, {"stop": 2}]
    peer.sendall(b'op": 3}\n')
    assert select.select([channel], [], [], 1)[0] and channel.received() == [{"stop": 3}]


def test_a_message_that_came_with_another_is_received_next(pair: tuple[Channel, socket.socket]) -> None:
    channel, peer = pair
    peer.sendall(b"1\n2\n")
    assert [channel.receive(), channel.receive()] == [1, 2]


def test_the_end_of_the_connection_is_an_error(pair: tuple[Channel, socket.socket]) -> None:
    channel, peer = pair
    peer.sendall(b"1\n")
    peer.close()
    assert channel.receive() == 1
    with pytest.raises(Closed):
        channel.receive()


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.2\n", b"\xff\xfe\n", b"[" * 5000 + b"\n"])
def test_what_is_no_message_ends_the_connection(pair: tuple[Channel, socket.socket], data: bytes) -> None:
    channel, peer = pair
    peer.sendall(data)
    with pytest.raises(Closed, match="no message"):
        channel.receive()


def test_a_message_without_an_end_is_not_kept_beyond_the_limit() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours, max_bytes=100)
        theirs.sendall(b"x" * 90)
        assert channel.received() == []
        theirs.sendall(b"x" * 20)
        with pytest.raises(Closed, match="more than 100 bytes"):
            channel.received()
