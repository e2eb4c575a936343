"""Both sides prove that they have the secret, and neither sends it."""

from __future__ import annotations

import socket
import threading

import pytest

from bench.launch.channel import Channel, Closed
from bench.launch.cluster import secret as secrets

RIGHT, WRONG = "r" * 32, "w" * 32


def exchange(host_secret: str, coordinator_secret: str) -> tuple[list[str], list[object]]:
    """Errors of both sides, and all that was sent."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    theirs.settimeout(5)
    host, coordinator, errors = Recording(ours), Recording(theirs), []

    def answer() -> None:
        proof = secrets.CoordinatorProof(coordinator_secret)
        try:
            while not proof.is_complete:
                if (message := proof.answer(coordinator.receive())) is not None:
                    coordinator.send(message)
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


class Recording(Channel):
    """A channel that keeps what it sends."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.sent: list[object] = []

    def send(self, message: object) -> None:
        self.sent.append(message)
        super().send(message)


def test_the_same_secret_is_accepted_and_never_sent() -> None:
    errors, sent = exchange(RIGHT, RIGHT)
    assert errors == [] and len(sent) == 3
    assert RIGHT not in str(sent)


def test_a_coordinator_without_the_secret_is_rejected_before_the_host_proves_anything() -> None:
    errors, sent = exchange(RIGHT, WRONG)
    assert "host: the coordinator has another secret" in errors and "coordinator: Closed" in errors
    assert len(sent) == 2  # the host's nonce, and the wrong proof


def test_a_host_that_repeats_what_it_was_sent_is_rejected() -> None:
    proof = secrets.CoordinatorProof(RIGHT)
    answer = proof.answer({"nonce": "n"})
    assert answer
    with pytest.raises(secrets.WrongSecret):
        proof.answer({"proof": answer["proof"]})


def test_a_nonce_that_has_no_encoding_is_answered_like_any_other() -> None:
    proof = secrets.CoordinatorProof(RIGHT)
    answer = proof.answer({"nonce": "\ud800"})
    assert answer
    proof.answer({"proof": secrets.proof(RIGHT, "host", "\ud800", answer["nonce"])})
    assert proof.is_complete


@pytest.mark.parametrize("message", [None, 1, [], {}, {"nonce": 3}, {"proof": "é"}])
def test_messages_of_another_kind_are_rejected_on_both_sides(message: object) -> None:
    with pytest.raises(secrets.WrongSecret):
        secrets.CoordinatorProof(RIGHT).answer(message)
    begun = secrets.CoordinatorProof(RIGHT)
    begun.answer({"nonce": "n"})
    with pytest.raises(secrets.WrongSecret):
        begun.answer(message)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Channel(theirs).send(message)
        with pytest.raises(secrets.WrongSecret):
            secrets.prove_as_host(Channel(ours), RIGHT)
