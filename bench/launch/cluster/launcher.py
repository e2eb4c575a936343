"""Launches over the hosts of a cluster: each host gets its slice, and the results are merged."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any, Self

from bench import messages
from bench.job import Job, LaunchResult
from bench.launch.cluster.facts import EXCHANGES, ClockOffset, ClockReading, HostFacts, clocks, offset
from bench.launch.cluster.host_server import BEAT_S, LOST_S, NOT_RUN
from bench.launch.cluster.membership import Member, Membership
from bench.launch.cluster.merge import HOST_LOST, merged
from bench.launch.cluster.starter import StartedElsewhere, Starter
from bench.launch.launcher import Host, LaunchError
from bench.launch.local import SLACK_S
from bench.measure.machine.torch_build import Machine
from bench.placement import Slice
from results.decode import decode

ANSWER_S = 10.0
"""How long a host may take to answer a question between launches."""


class ClusterLauncher:
    """The coordinator's launcher. Close it to end all host servers."""

    def __init__(self, membership: Membership, starter: Starter | None = None) -> None:
        """``starter``: what started the host servers."""
        self._members, self._starter = membership, starter or StartedElsewhere()
        self._launches = 0
        self._left_out: set[int] = set()
        self.status = NOT_RUN

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def hosts(self) -> list[Host]:
        """All hosts that are not left out, by index. Raises LaunchError if one does not join or was lost, naming it."""
        members, order = self._members.members, self._order()
        missing = self._members.gather(set(order), self._starter)
        for index in sorted(missing & set(members)):
            if failure := members[index].warm_up_failure:
                raise LaunchError(f"{members[index].name}: {failure}")
        if missing & set(self._members.lost):
            raise LaunchError(self._unavailable(order))
        if missing:
            silence = f"nothing was heard of it for {self._members.join_s:g} s"
            failures = (self._members.refusal, *map(self._starter.failure, sorted(missing)), silence)
            joined = ", ".join(members[index].name for index in sorted(members)) or "none"
            raise LaunchError(
                f"host {', '.join(map(str, sorted(missing)))} of {self._members.size} did not join: "
                f"{next(filter(None, failures))} (joined: {joined}); see the output of its host server"
            )
        return [members[index].host for index in order]

    @property
    def machine(self) -> Machine:
        return self.hosts[0].machine

    def leave_out(self, places: Collection[int]) -> None:
        """Excludes the hosts at these places of ``hosts`` from all further launches."""
        order = self._order()
        self._left_out |= {order[place] for place in places}

    def facts(self, place: int) -> HostFacts | None:
        """What the host at this place of ``hosts`` reports of itself; None if it does not answer."""
        answer = self._ask(place, "facts")
        return None if answer is None else decode(answer, HostFacts, "facts")

    def clock_offset(self, place: int) -> ClockOffset | None:
        """The clocks of a host relative to this process's, of the exchange with the shortest round trip."""
        offsets = []
        for _ in range(EXCHANGES):
            before = clocks()
            answer = self._ask(place, "clocks")
            after = clocks()
            if answer is None:
                break
            offsets.append(offset(before, decode(answer, ClockReading, "clocks"), after))
        return min(offsets, key=lambda one: one.bound_s, default=None)

    def _ask(self, place: int, question: str) -> Any:
        member = self._members.members.get(self._order()[place])
        return None if member is None else self._members.ask(member, question, ANSWER_S)

    def launch(self, job: Job[Any]) -> LaunchResult[Any]:
        """Runs all ranks of ``job``, on one host or several. Never raises for what a rank or a host does."""
        self._launches += 1
        counts = job.ranks_by_host or [job.world_size]
        indices = self._order()[: len(counts)]
        if self._members.gather(set(indices), self._starter):
            return LaunchResult("failed", self._unavailable(indices), by_chance=True)
        return LaunchInProgress(self._members, job, counts, indices, self._launches).run()

    def _order(self) -> list[int]:
        """Indices of the hosts that launches may use, in the order in which ranks fill them."""
        return [index for index in range(self._members.size) if index not in self._left_out]

    def _unavailable(self, indices: Sequence[int]) -> str:
        """Which of these hosts are not ready, and why."""
        ready = self._members.ready()
        gone = [f"{self._members.names[index]} ({self._why(index)})" for index in indices if index not in ready]
        return f"lost: {', '.join(gone)}; resume=true runs what is missing"

    def _why(self, index: int) -> str:
        loss = self._members.lost.get(index)
        return loss.reason if loss else self._starter.failure(index) or "its fork server is not ready"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._members.close(self.status)
        self._starter.end()


class LaunchInProgress:
    """One launch on the hosts that it needs; a host's place is its number among them."""

    def __init__(
        self, members: Membership, job: Job[Any], counts: list[int], indices: Sequence[int], number: int
    ) -> None:
        """``indices``: of the hosts among the members, by place."""
        self._members, self._job, self._counts, self._number = members, job, counts, number
        self._hosts = [members.members[index] for index in indices]
        self._results: dict[int, LaunchResult[Any]] = {}
        self._began_s = [time.monotonic()] * len(self._hosts)
        self._beat = time.monotonic()
        self._stopped = False
        self._began: set[int] = set()
        """Places of the hosts that were sent their slice."""

    def run(self) -> LaunchResult[Any]:
        started = time.perf_counter()
        deadline = time.monotonic() + 2 * self._job.timeout_s + SLACK_S
        self._begin(0)
        while len(self._results) < len(self._hosts):
            self._take(self._members.pump(BEAT_S / 2))
            self._send_beats()
            self._note_losses()
            if time.monotonic() >= deadline:
                self._give_up()
            if not self._stopped and any(result.status != "ok" for result in self._results.values()):
                self._stopped = True
                self._send_all({"stop": self._number})
        names = [self._members.names[member.index] for member in self._hosts]
        if len(names) == 1 and self._results[0].cause_order != HOST_LOST:
            return self._results[0]
        return dataclasses.replace(merged(self._results, names), total_s=time.perf_counter() - started)

    def _begin(self, place: int, store: Sequence[Any] = ("", 0)) -> None:
        """Sends a host its slice; those without rank 0 need the address of the store."""
        member = self._hosts[place]
        spans = len(self._counts) > 1
        part = Slice(
            self._counts,
            place,
            self._job.servers,
            member.address if spans else "127.0.0.1",
            member.interface if spans else "",
            str(store[0]),
            int(store[1]),
            self._number,
        )
        self._began.add(place)
        self._began_s[place] = time.monotonic()
        job = messages.job_message(self._job)
        self._members.send(self._hosts[place], {"launch": self._number, "job": job, "slice": dataclasses.asdict(part)})

    def _send_beats(self) -> None:
        """Sends heartbeats if they are due."""
        now = time.monotonic()
        if now - self._beat >= BEAT_S:
            self._beat = now
            self._send_all({"beat": self._number})

    def _take(self, arrived: list[tuple[Member, Any]]) -> None:
        for member, message in arrived:
            self._send_beats()  # to read a result may take long
            place = next((place for place, host in enumerate(self._hosts) if host is member), None)
            if place is None or place in self._results or message.get("launch") != self._number:
                continue
            if "store" in message and place == 0 and not self._stopped:
                for other in range(1, len(self._counts)):
                    self._begin(other, message["store"])
            elif "result" in message:
                self._results[place] = messages.read_result(message["result"], self._job)
                if place == 0 and self._results[0].status != "ok":  # the others may not have begun
                    self._never_began()

    def _never_began(self) -> None:
        """Hosts that were not sent their slice have nothing to end."""
        for place in range(len(self._hosts)):
            if place not in self._began:
                self._results[place] = LaunchResult("failed", "was not started", cause_order=9)

    def _note_losses(self) -> None:
        """Silence counts until the last look: what came after it is not read yet."""
        for place, member in enumerate(self._hosts):
            if place in self._results:
                continue
            if self._members.members.get(member.index) is not member:
                loss = self._members.lost.get(member.index)
                self._note_lost(place, loss.reason if loss else "it joined again")
            elif place in self._began:
                heard_s = max(self._began_s[place], member.heard_s)
                if self._members.looked_s - heard_s > LOST_S:
                    self._lose(place, f"no heartbeat for {LOST_S:g} s")

    def _lose(self, place: int, reason: str) -> None:
        self._members.lose(self._hosts[place], reason)
        self._note_lost(place, reason)

    def _note_lost(self, place: int, reason: str) -> None:
        self._results[place] = LaunchResult("failed", f"host lost: {reason}", by_chance=True, cause_order=HOST_LOST)
        if place == 0:
            self._never_began()

    def _give_up(self) -> None:
        for place in range(len(self._hosts)):
            if place not in self._results:
                self._lose(place, "it did not end the launch in time")

    def _send_all(self, message: Any) -> None:
        for place in range(len(self._hosts)):
            if place not in self._results and place in self._began:
                self._members.send(self._hosts[place], message)
