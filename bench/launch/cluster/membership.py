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

from bench.launch.channel import Channel, Closed, Message
from bench.launch.cluster.arrival import Arrival, Rejected
from bench.launch.cluster.host_server import LOST_STATUS, NOT_RUN, keep_alive
from bench.launch.cluster.starter import Loss, Starter
from bench.launch.launcher import Host, LaunchError
from bench.measure.machine.torch_build import Machine
from results.decode import decode
from results.environment import Environment
from results.shown import printable

CUT = "its host server ended, or the connection was cut"
JOIN_S = 180.0
"""How long a host may take to join once its host server was started, and to import torch."""
NOTE_S = 30.0
"""After which the hosts that are waited for are printed."""
BACK_S = 20.0
"""How long a host that was lost may take to join again."""
SETTLE_S = 2.0
"""How long a launch waits for connections that may be a lost host which joins again."""
MAX_ARRIVALS = 64
"""Connections that have not proven the secret, in addition to one per host. Of more, the first is closed."""


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
    heard_s: float = field(default_factory=time.monotonic)
    """When anything last arrived of it, on the monotonic clock: a part of a message too."""

    def fileno(self) -> int:
        return self.channel.fileno()

    @property
    def host(self) -> Host:
        assert self.machine
        facts = self.digest, self.lock_digest, self.environment
        return Host(self.name, self.machine, self.cores, self.interface, *facts)


class Membership:
    """The listening socket of the coordinator, and the hosts by their index."""

    def __init__(
        self, address: str, port: int, secret: str, preload: list[str], size: int, join_s: float = JOIN_S
    ) -> None:
        """``size``: hosts that are expected, each within ``join_s``.

        Raises LaunchError if the address cannot be listened on.
        """
        self._secret, self._preload, self.size, self.join_s = secret, preload, size, join_s
        self.members: dict[int, Member] = {}
        self.names = [f"host {index}" for index in range(size)]
        """By index; of hosts that were lost too."""
        self.lost: dict[int, Loss] = {}
        """Hosts that are gone, by index."""
        self.refusal = ""
        """Why a host that has the secret was refused; empty if none was."""
        self.looked_s = time.monotonic()
        """On the monotonic clock. What hosts sent until then is read, however long it takes to process."""
        self._arrivals: list[Arrival] = []
        self._rejected: set[tuple[str, str]] = set()
        """Rejected connections that were printed: address and reason."""
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

        A host has ``join_s`` to join, ``JOIN_S`` to import torch, and ``BACK_S`` to join again after a loss. A lost
        host whose server ended is started again, where ``starter`` can.
        """
        started, note_s = time.monotonic(), time.monotonic() + NOTE_S
        self.pump(0)
        while wanted - self.ready() and self._arrivals and time.monotonic() < started + SETTLE_S:
            self.pump(0.1)
        while missing := wanted - self.ready():
            now = time.monotonic()
            for index in missing & set(self.lost):
                if starter.restart(index, self.lost[index]):
                    print(f"warning: {self.names[index]}: its host server ended; it is started again", file=sys.stderr)
                    del self.lost[index]
                    started = now
            if any(now > self._deadline(index, started, starter) for index in missing):
                break
            if now > note_s:
                note_s = math.inf
                print(f"waiting for {', '.join(self.names[index] for index in sorted(missing))}", file=sys.stderr)
            self.pump(0.5)
        return missing

    def _deadline(self, index: int, started: float, starter: Starter) -> float:
        """Until when it makes sense to wait for a host."""
        if loss := self.lost.get(index):
            return loss.at_s + BACK_S
        if member := self.members.get(index):
            return -math.inf if member.warm_up_failure else member.joined_s + JOIN_S
        return -math.inf if self.refusal or starter.failure(index) else started + self.join_s

    def pump(self, seconds: float) -> list[tuple[Member, Any]]:
        """Accepts hosts and reads from all; messages of launches with their sender."""
        messages = []
        sources: list[Any] = [self.listener, *self._arrivals, *self.members.values()]
        self.looked_s = time.monotonic()
        for source in select.select(sources, [], [], seconds)[0]:
            if source is self.listener:
                self._accept()
            elif isinstance(source, Arrival):
                self._hear(source)
            else:
                messages += self._read(source)
        for arrival in [arrival for arrival in self._arrivals if arrival.is_late]:
            self._reject(arrival, "it did not prove the secret in time")
        return messages

    def _read(self, member: Member) -> list[tuple[Member, Any]]:
        """Takes what a host has sent; messages of launches, with their sender."""
        try:
            arrived = member.channel.received()
        except (Closed, OSError) as error:
            self.lose(member, CUT, has_ended=isinstance(error, Closed))
            return []
        member.heard_s = time.monotonic()
        messages = []
        for message in arrived:
            if "machine" in message:
                try:
                    member.machine = decode(message["machine"], Machine, "machine")
                except ValueError as error:
                    member.warm_up_failure = f"its answer does not fit ({error}); it must run the same code as this one"
                member.environment = message["environment"]
            elif "failed" in message:
                member.warm_up_failure = printable(str(message["failed"]))
            else:
                messages.append((member, message))
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
        try:
            connection, peer = self.listener.accept()
        except OSError:  # it is gone already, or there are too many files
            return
        self._arrivals.append(Arrival(connection, peer[0], self._secret))
        if len(self._arrivals) > MAX_ARRIVALS + self.size:
            self._reject(self._arrivals[0], "there are too many connections")

    def _hear(self, arrival: Arrival) -> None:
        """Takes what a connection has sent that is no host yet."""
        if arrival not in self._arrivals:  # rejected since it was selected
            return
        try:
            description = arrival.description()
        except Rejected as error:
            self._reject(arrival, str(error))
            return
        if description is not None:
            self._arrivals.remove(arrival)
            self._admit(arrival.channel, description, arrival.peer)

    def _reject(self, arrival: Arrival, reason: str) -> None:
        self._arrivals.remove(arrival)
        arrival.channel.close()
        if (arrival.peer, reason) not in self._rejected:
            self._rejected.add((arrival.peer, reason))
            print(f"warning: a connection from {arrival.peer} was refused: {printable(reason)}", file=sys.stderr)

    def _admit(self, channel: Channel, description: Message, peer: str) -> None:
        """Makes a host that has proven the secret a member, and lets it import what ranks need."""
        channel.max_bytes = None
        try:
            keep_alive(channel.socket)
            member = Member(channel, **description)
            if not 0 <= member.index < self.size:
                raise ValueError(f"it is host {member.index}, and the sweep has hosts 0 to {self.size - 1}")
            if not member.warm_up_failure:
                channel.send({"preload": self._preload})
        except (OSError, TypeError, ValueError) as error:
            reason = "it runs other code than the coordinator" if isinstance(error, TypeError) else str(error)
            if not isinstance(error, OSError):
                self.refusal = (
                    f"host {printable(str(description.get('name')))} ({peer}) was refused: {printable(reason)}"
                )
                print(f"warning: {self.refusal}", file=sys.stderr)
                with contextlib.suppress(OSError):
                    channel.send({"exit": NOT_RUN, "reason": f"refused by the coordinator: {reason}"})
            channel.close()
            return
        if earlier := self.members.pop(member.index, None):
            if earlier.instance != member.instance:  # else both would take turns at replacing each other
                with contextlib.suppress(OSError):
                    earlier.channel.send({"exit": LOST_STATUS, "reason": "another server of this host has joined"})
            earlier.channel.close()
        self.members[member.index] = member
        self.names[member.index] = printable(member.name)
        self.lost.pop(member.index, None)

    def lose(self, member: Member, reason: str, *, has_ended: bool = False) -> None:
        """``has_ended``: whether the other side closed the connection, as it does when its process ends."""
        member.channel.close()
        if self.members.get(member.index) is member:
            del self.members[member.index]
            self.lost[member.index] = Loss(reason, time.monotonic(), has_ended)

    def close(self, status: int) -> None:
        """Ends all host servers, which leave with ``status``."""
        for member in self.members.values():
            with contextlib.suppress(OSError):
                member.channel.send({"exit": status})
            member.channel.close()
        self.members.clear()
        for arrival in self._arrivals:
            arrival.channel.close()
        self._arrivals.clear()
        self.listener.close()
