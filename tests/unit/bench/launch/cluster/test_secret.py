"""Both sides prove that they have the secret, and neither sends it."""

from __future__ import annotations

import socket
import threading

from bench.launch.channel import Channel, Closed
from bench.launch.cluster import secret as secrets

RIGHT, WRONG = "r" * 32, "w" * 32


class Recording(Channel):
    """A channel that keeps what it sends."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.sent: list[object] = []

    def send(self, message: object) -> None:
        self.sent.append(message)
        super().send(message)


def wait_for_all(host_secret: str, coordinator_secret: str) -> tuple[list[str], list[object]]:
    """Errors of both sides, and all that was sent."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    theirs.settimeout(5)
    host, coordinator, errors = Recording(ours), Recording(theirs), []

    def answer() -> None:
        try:
            secrets.prove_as_coordinator(coordinator, coordinator_secret)
        except (secrets.WrongSecret, Closed) as error:
            errors.append(f"coordinator: {type(error).__name__}")

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        secrets.prove_as_host(host, host_secret)
    except secrets.WrongSecret as error:
        errors.append(f"host: {error}")
        host.close()
    thread.join()
    host.close()
    coordinator.close()
    return errors, host.sent + coordinator.sent


def test_the_same_secret_is_accepted_and_never_sent() -> None:
    errors, sent = wait_for_all(RIGHT, RIGHT)
    assert errors == [] and len(sent) == 3
    assert RIGHT not in str(sent)


def test_a_coordinator_without_the_secret_is_rejected_before_the_host_proves_anything() -> None:
    errors, sent = wait_for_all(RIGHT, WRONG)
    assert "host: the coordinator has another secret" in errors and "coordinator: Closed" in errors
    assert len(sent) == 2  # the host's nonce, and the wrong proof


def test_a_host_that_repeats_what_it_was_sent_is_rejected() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        host, coordinator = Channel(ours), Channel(theirs)
        host.send({"nonce": "n"})
        thread_error: list[BaseException] = []

        def answer() -> None:
            try:
                secrets.prove_as_coordinator(coordinator, RIGHT)
            except secrets.WrongSecret as error:
                thread_error.append(error)

        thread = threading.Thread(target=answer)
        thread.start()
        host.send({"proof": host.receive()["proof"]})
        thread.join()
        assert len(thread_error) == 1
