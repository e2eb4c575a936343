"""Messages over a socket: one JSON object per line, read without a buffer that ``select`` cannot see."""

from __future__ import annotations

import json
import socket
from typing import Any

CHUNK_BYTES = 1 << 16

Message = dict[str, Any]


class Closed(Exception):
    """The other side closed the connection, is gone, or sends what is no message."""


class Channel:
    """One end of a connection. ``select`` may wait for it; then ``received`` takes all messages that have arrived."""

    def __init__(self, connection: socket.socket, max_bytes: int | None = None) -> None:
        """``max_bytes``: of one message; None: no limit."""
        self.socket = connection
        self.max_bytes = max_bytes
        self._partial = bytearray()
        self._complete: list[Any] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: Any) -> None:
        """Raises OSError if the other side is gone."""
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Any:
        """The next message; waits for it as long as the socket's timeout allows. Raises Closed and TimeoutError."""
        while not self._complete:
            self._read()
        return self._complete.pop(0)

    def received(self) -> list[Any]:
        """The messages that are here, after one read that does not wait if the socket is readable. Raises Closed."""
        if not self._complete:
            self._read()
        messages, self._complete = self._complete, []
        return messages

    def _read(self) -> None:
        try:
            data = self.socket.recv(CHUNK_BYTES)
        except ConnectionError as error:
            raise Closed(str(error)) from error
        if not data:
            raise Closed("the connection was closed")
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._complete.append(parsed(bytes(self._partial) + end))
            self._partial.clear()
        self._partial += rest
        if self.max_bytes is not None and len(self._partial) > self.max_bytes:
            raise Closed(f"a message has more than {self.max_bytes} bytes")

    def close(self) -> None:
        self.socket.close()


def parsed(line: bytes) -> Any:
    """Raises Closed for what is not JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Closed(f"what arrived is no message: {type(error).__name__}") from error
