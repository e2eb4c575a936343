"""A connection to the coordinator that has not yet proven the secret. Nothing waits for it, and it can send little."""

from __future__ import annotations

import socket
import time

from bench.launch.channel import Channel, Closed, Message
from bench.launch.cluster import secret as secrets

PROOF_S = 10.0
"""How long a connection may take to prove the secret and to describe its host."""
MAX_BYTES = 1 << 14
"""Of a message before."""


class Rejected(Exception):
    """The connection does not join the sweep."""


class Arrival:
    """A connection on its way to become a host."""

    def __init__(self, connection: socket.socket, peer: str, secret: str) -> None:
        connection.setblocking(False)
        self.channel = Channel(connection, MAX_BYTES)
        self.peer = peer
        self._proof = secrets.CoordinatorProof(secret)
        self._until_s = time.monotonic() + PROOF_S

    def fileno(self) -> int:
        return self.channel.fileno()

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self._until_s

    def description(self) -> Message | None:
        """What the host says of itself once it has proven the secret; None before. Raises Rejected."""
        try:
            for message in self.channel.received():
                if self._proof.is_complete:
                    return described(message)
                answer = self._proof.answer(message)
                if answer is not None:
                    self.channel.send(answer)
        except (secrets.WrongSecret, Closed, OSError) as error:
            raise Rejected(str(error)) from error
        return None


def described(message: object) -> Message:
    if not isinstance(message, dict):
        raise Rejected("it does not describe its host")
    return message
