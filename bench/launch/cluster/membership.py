"""The hosts that have joined the coordinator, and the socket that they join by."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from bench.launch.channel import Channel, Closed
from bench.launch.cluster import secret as secrets
from bench.launch.cluster.host_server import LOST_STATUS, keep_alive
from bench.launch.cluster.starter import Starter
from bench.launch.launcher import Host, LaunchError
from bench.measure.machine.torch_build import Machine
from results.decode import decode
from results.environment import Environment
from results.shown import printable

CUT = "its host server ended, or the connection was cut"
JOIN_S = 180.0
"""How long a host may take to join, and to import torch."""
BACK_S = 20.0
"""How long a host that was lost may take to join again."""
PROOF_S = 3.0
"""How long a connection may take to prove the secret."""


@dataclass(frozen=True)
class Loss:
    """How a host was lost."""

    reason: str
    at_s: float
    """On the coordinator's monotonic clock."""


@dataclass
class Member:
    """A host that has joined."""

    channel: Channel
    index: int
    instance: str
    """Of the host server: another one has another."""
    name: str
    address: str
    interface: str
    cores: float
    digest: str
    lock_digest: str
    machine: Machine | None = None
    """None until its fork server is warm."""
    environment: Environment | None = None
    warm_up_failure: str = ""
    joined_s: float = field(default_factory=time.monotonic)

    def fileno(self) -> int:
        return self.channel.fileno()

    @property
    def host(self) -> Host:
        assert self.machine
        facts = self.digest, self.lock_digest, self.environment
        return Host(self.name, self.machine, self.cores, self.interface, *facts)


class Membership:
    """The listening socket of the coordinator, and the hosts by their index."""

    def __init__(self, address: str, port: int, secret: str, preload: list[str], size: int) -> None:
        """``size``: hosts that are expected. Raises LaunchError if the address cannot be listened on."""
        self._secret, self._preload, self.size = secret, preload, size
        self.members: dict[int, Member] = {}
        self.names = [f"host {index}" for index in range(size)]
        """By index; of hosts that were lost too."""
        self.lost: dict[int, Loss] = {}
        """Hosts that are gone, by index."""
        try:
            family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
            self.listener = socket.create_server((address, port), family=family, backlog=size + 8)
        except OSError as error:
            raise LaunchError(
                f"the coordinator cannot listen on {address} port {port} ({error.strerror}); valid: an address of this "
                "node (cluster.address) and a free port (cluster.port)"
            ) from error

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def ready(self) -> set[int]:
        """Indices of the hosts whose fork servers are warm."""
        return {index for index, member in self.members.items() if member.machine}

    def gather(self, wanted: set[int], starter: Starter) -> set[int]:
        """Waits for the hosts ``wanted``. The result is those that are still missing once one of them cannot come.

        A host has ``JOIN_S`` to join, as long again to import torch, and ``BACK_S`` to join again after a loss. A
        lost host whose server ended is started again, where ``starter`` can.
        """
        started = time.monotonic()
        self.pump(0)
        while missing := wanted - self.ready():
            now = time.monotonic()
            for index in missing & set(self.lost):
                if starter.restart(index):
                    print(f"warning: {self.names[index]}: its host server ended; it is started again", file=sys.stderr)
                    del self.lost[index]
                    started = now
            if any(now > self._deadline(index, started, starter) for index in missing):
                break
            self.pump(0.5)
        return missing

    def _deadline(self, index: int, started: float, starter: Starter) -> float:
        """Until when it makes sense to wait for a host."""
        if loss := self.lost.get(index):
            return loss.at_s + BACK_S
        if member := self.members.get(index):
            return -math.inf if member.warm_up_failure else member.joined_s + JOIN_S
        return -math.inf if starter.failure(index) else started + JOIN_S

    def pump(self, seconds: float) -> list[tuple[Member, Any]]:
        """Accepts hosts and reads from all; messages of launches with their sender."""
        messages = []
        sources: list[Any] = [self.listener, *self.members.values()]
        for source in select.select(sources, [], [], seconds)[0]:
            if source is self.listener:
                self._accept()
                continue
            try:
                arrived = source.channel.received()
            except (Closed, OSError):
                self.lose(source, CUT)
                continue
            for message in arrived:
                if "machine" in message:
                    source.machine = decode(message["machine"], Machine, "machine")
                    source.environment = message["environment"]
                elif "failed" in message:
                    source.warm_up_failure = printable(str(message["failed"]))
                else:
                    messages.append((source, message))
        return messages

    def send(self, member: Member, message: Any) -> None:
        """Sends to a host; one that cannot be reached is lost."""
        try:
            member.channel.send(message)
        except OSError:
            self.lose(member, CUT)

    def ask(self, member: Member, question: str, seconds: float) -> Any:
        """A host's answer to ``question`` between launches; None if it does not answer in time, or is lost."""
        self.send(member, {question: True})
        deadline = time.monotonic() + seconds
        while self.members.get(member.index) is member and (left := deadline - time.monotonic()) > 0:
            for sender, message in self.pump(left):
                if sender is member and question in message:
                    return message[question]
        return None

    def _accept(self) -> None:
        connection, peer = self.listener.accept()
        connection.settimeout(PROOF_S)
        channel = Channel(connection)
        try:
            secrets.prove_as_coordinator(channel, self._secret)
            facts = channel.receive()
            keep_alive(connection)
            member = Member(channel, **facts)
            if not 0 <= member.index < self.size:
                raise ValueError("index")
            channel.send({"preload": self._preload})
        except (secrets.WrongSecret, Closed, OSError, ValueError, TypeError, AttributeError) as error:
            print(f"warning: a connection from {peer[0]} was refused: {printable(str(error))}", file=sys.stderr)
            channel.close()
            return
        if earlier := self.members.pop(member.index, None):
            if earlier.instance != member.instance:  # else both would take turns at replacing each other
                with contextlib.suppress(OSError):
                    earlier.channel.send({"exit": LOST_STATUS})
            earlier.channel.close()
        self.members[member.index] = member
        self.names[member.index] = printable(member.name)
        self.lost.pop(member.index, None)

    def lose(self, member: Member, reason: str) -> None:
        member.channel.close()
        if self.members.get(member.index) is member:
            del self.members[member.index]
            self.lost[member.index] = Loss(reason, time.monotonic())

    def close(self, status: int) -> None:
        """Ends all host servers, which leave with ``status``."""
        for member in self.members.values():
            with contextlib.suppress(OSError):
                member.channel.send({"exit": status})
            member.channel.close()
        self.members.clear()
        self.listener.close()
