"""Mutual proof of a shared secret, which itself is never sent (HMAC-SHA256 challenge and response)."""

from __future__ import annotations

import hmac
import secrets

from bench.launch.channel import Channel, Message

VARIABLE = "BENCH_CLUSTER_SECRET"
"""Where a person sets it for cluster=env; other kinds of cluster make one for each sweep."""
MIN_CHARACTERS = 16


class WrongSecret(Exception):
    """The other side does not have the secret."""


def new() -> str:
    return secrets.token_hex(32)


def proof(secret: str, role: str, own: str, other: str) -> str:
    """``role`` keeps one side from answering with what the other sent. Any string of JSON is valid, surrogates too."""
    key, message = (text.encode(errors="surrogatepass") for text in (secret, f"{role}|{own}|{other}"))
    return hmac.new(key, message, "sha256").hexdigest()


def is_right(answer: object, expected: str) -> bool:
    """Whether a message has this proof."""
    given = answer.get("proof") if isinstance(answer, dict) else None
    return isinstance(given, str) and hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def prove_as_host(channel: Channel, secret: str) -> None:
    """The host's side. Raises WrongSecret, Closed and OSError."""
    own = secrets.token_hex(16)
    channel.send({"nonce": own})
    answer = channel.receive()
    other = str(answer.get("nonce")) if isinstance(answer, dict) else ""
    if not is_right(answer, proof(secret, "coordinator", other, own)):
        raise WrongSecret("the coordinator has another secret")
    channel.send({"proof": proof(secret, "host", own, other)})


class CoordinatorProof:
    """The coordinator's side, message by message, so that no host is waited for."""

    def __init__(self, secret: str) -> None:
        self._secret, self._own, self._other = secret, secrets.token_hex(16), ""
        self.is_complete = False

    def answer(self, message: object) -> Message | None:
        """The answer to the host's nonce; None once the host has proven the secret. Raises WrongSecret."""
        if self._other:
            if not is_right(message, proof(self._secret, "host", self._other, self._own)):
                raise WrongSecret("the host has another secret")
            self.is_complete = True
            return None
        nonce = message.get("nonce") if isinstance(message, dict) else None
        if not isinstance(nonce, str) or not nonce:
            raise WrongSecret("it does not begin as a host does")
        self._other = nonce
        return {"nonce": self._own, "proof": proof(self._secret, "coordinator", self._own, nonce)}
