"""Mutual proof of a shared secret, which itself is never sent (HMAC-SHA256 challenge and response)."""

from __future__ import annotations

import hmac
import secrets

from bench.launch.channel import Channel

VARIABLE = "BENCH_CLUSTER_SECRET"
"""Where a person sets it for cluster=env; other kinds of cluster make one for each sweep."""
MIN_CHARACTERS = 16


class WrongSecret(Exception):
    """The other side does not have the secret."""


def new() -> str:
    return secrets.token_hex(32)


def proof(secret: str, role: str, own: str, other: str) -> str:
    """``role`` keeps one side from answering with what the other sent."""
    return hmac.new(secret.encode(), f"{role}|{own}|{other}".encode(), "sha256").hexdigest()


def prove_as_host(channel: Channel, secret: str) -> None:
    """The host's side. Raises WrongSecret, Closed and OSError."""
    own = secrets.token_hex(16)
    channel.send({"nonce": own})
    answer = channel.receive()
    other = str(answer.get("nonce"))
    if not hmac.compare_digest(str(answer.get("proof")), proof(secret, "coordinator", other, own)):
        raise WrongSecret("the coordinator has another secret")
    channel.send({"proof": proof(secret, "host", own, other)})


def prove_as_coordinator(channel: Channel, secret: str) -> None:
    """The coordinator's side. Raises WrongSecret, Closed and OSError."""
    own, other = secrets.token_hex(16), str(channel.receive().get("nonce"))
    channel.send({"nonce": own, "proof": proof(secret, "coordinator", own, other)})
    if not hmac.compare_digest(str(channel.receive().get("proof")), proof(secret, "host", other, own)):
        raise WrongSecret("the host has another secret")
