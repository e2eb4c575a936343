"""The process on each host: joins the coordinator, runs the host's fork server, and ends both with the coordinator.

``python -m bench.launch.cluster.host_server ADDRESS PORT INDEX [INTERFACE]`` reads the secret from the first line of
its standard input. INDEX is the host's number, or the name of a variable that has it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from bench.job import LaunchResult
from bench.launch.channel import Channel, Closed, Message
from bench.launch.cluster import facts
from bench.launch.cluster import secret as secrets
from bench.launch.cluster.interfaces import address_of, interface_to, without_address
from bench.launch.compile_cache import is_private
from bench.launch.prctl import outlive_parent
from bench.launch.server_process import ServerProcess, server_environment
from bench.measure.machine import environment, limits, process_stat, source
from bench.measure.machine.torch_build import Machine
from results.decode import decode
from results.environment import Environment

BEAT_S = 0.75
"""Seconds between heartbeats during a launch; half of it may pass until one is sent, or a silence is noticed.

So a side may pause for 3.8 s, as on a busy machine, before the other counts it as lost.
"""
LOST_S = 5.0
"""Seconds of silence during a launch after which the other side counts as lost.

Ranks then have a second to end by themselves and 0.3 s to write their stacks: after about 7 s all are gone.
"""
FIRST_S = 600.0
"""How long a host server waits for the coordinator to listen: the same command may start minutes later there."""
NOTE_S = 30.0
"""After which it prints that it waits."""
RETRY_S = 60.0
"""How long a host server tries to reach a coordinator that does not answer."""
PAUSE_S = 0.2
"""Between two attempts."""
CONNECT_S = 5.0
ACCEPT_S = 60.0
"""How long a coordinator that listens may take to accept a host: it prepares the sweep meanwhile."""
KILLED_S = 3.0
"""How long a fork server that is killed may take to end before the next heartbeat."""
LEAVE_S = 5.0
"""How long a host server stays after SIGTERM."""
LOST_STATUS = 1
"""Exit status of a host server whose coordinator ended without saying how the sweep ended."""
NOT_RUN = 2
"""Exit status of host servers where the sweep did not begin."""


class CoordinatorLost(Exception):
    """The coordinator closed the connection, or sends nothing."""


class HostServer:
    """One host of a cluster."""

    def __init__(
        self,
        address: str,
        port: int,
        index: int,
        secret: str,
        interface: str | None = None,
        *,
        begins_later: bool = False,
    ) -> None:
        """``begins_later``: whether the coordinator may listen later than this host server asks for it."""
        self._coordinator, self._begins_later = (address, port), begins_later
        self._index, self._secret, self._chosen = index, secret, interface
        self._instance = uuid.uuid4().hex
        self._code = source.collect([])  # before joining, which may not take long
        self._server: ServerProcess | None = None
        self._warm = False
        self._environment: Environment | None = None
        """None until it was collected, once: that takes seconds, and later fork servers warm up during launches."""
        self._launch: int | None = None
        self._was_stopped = False
        self._heard = self._beat = time.monotonic()
        self._place = address, port, index, secret
        self._scratch = scratch_of(*self._place)

    def run(self) -> int:
        """Serves until the coordinator ends the sweep; the sweep's exit status."""
        deadline = time.monotonic() + (FIRST_S if self._begins_later else RETRY_S)
        try:
            while True:
                channel = self._connected(deadline)
                if channel is None:
                    return LOST_STATUS
                with contextlib.closing(channel), contextlib.suppress(CoordinatorLost, Closed, OSError):
                    return self._serve(channel)
                self._end_server()
                time.sleep(PAUSE_S)
                deadline = time.monotonic() + RETRY_S
        finally:
            self._end_server()
            if not self._owner.exists() or self._owner.read_text() == self._instance:
                shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def _owner(self) -> Path:
        """Says which server of this host uses its files: the one that joined last."""
        return self._scratch / "server"

    def _connected(self, deadline: float) -> Channel | None:
        """A connection to the coordinator; None, with the last error in a line, once it does not listen any more, or
        time is over."""
        last: OSError | None = None
        note_s = time.monotonic() + NOTE_S
        while time.monotonic() < deadline:
            try:
                connection = socket.create_connection(self._coordinator, timeout=CONNECT_S)
            except OSError as error:
                last = error
                if isinstance(error, ConnectionRefusedError) and not self._begins_later:
                    break
            else:
                try:
                    return self._joined(connection)
                except (Closed, OSError) as error:
                    connection.close()
                    last = error if isinstance(error, OSError) else ConnectionError(f"not accepted: {error}")
            if time.monotonic() > note_s:
                note_s = math.inf
                print(f"bench: host server: waiting for the coordinator at {self._where()}: {last}", file=sys.stderr)
            time.sleep(PAUSE_S)
        print(f"bench: host server: no connection to the coordinator at {self._where()}: {last}", file=sys.stderr)
        return None

    def _where(self) -> str:
        address, port = self._coordinator
        return f"{address} port {port}"

    def _joined(self, connection: socket.socket) -> Channel | None:
        """None, with a line, for another secret. Raises Closed and OSError."""
        connection.settimeout(ACCEPT_S)
        channel = Channel(connection)
        try:
            secrets.prove_as_host(channel, self._secret)
        except secrets.WrongSecret as error:
            print(f"bench: host server: {error}", file=sys.stderr)
            channel.close()
            return None
        self._begins_later = False
        keep_alive(connection)
        address, problem = connection.getsockname()[0], ""
        interface = self._chosen or interface_to(address)
        if self._chosen:
            address = address_of(self._chosen, like=address)
            problem = "" if address else without_address(self._chosen)
        if not self._scratch.exists():  # the server before removed it as it ended
            self._scratch = scratch_of(*self._place)
        self._owner.write_text(self._instance)
        channel.send(
            {
                "index": self._index,
                "instance": self._instance,
                "name": socket.gethostname(),
                "address": address,
                "interface": interface,
                "cores": limits.usable_cores(),
                "digest": self._code.digest,
                "lock_digest": self._code.lock_digest,
                "warm_up_failure": problem,
            }
        )
        return channel

    def _serve(self, channel: Channel) -> int:
        """Forwards messages until the coordinator says how the sweep ended. Raises CoordinatorLost and Closed."""
        while True:
            sources: list[Channel] = [channel, *([self._server.channel] if self._server else [])]
            looked = time.monotonic()  # what arrives before is read below
            ready = select.select(sources, [], [], BEAT_S / 2 if self._launch is not None else None)[0]
            if channel in ready:
                self._heard = time.monotonic()
                for message in channel.received():
                    if "exit" in message:
                        if reason := message.get("reason"):
                            print(f"bench: host server: {reason}", file=sys.stderr)
                        return int(message["exit"])
                    self._obey(message, channel)
            if self._server and self._server.channel in ready:
                self._forward(channel)
            if self._launch is not None:
                self._check_launch(channel, looked)

    def _obey(self, message: Message, channel: Channel) -> None:
        if "clocks" in message:
            channel.send({"clocks": dataclasses.asdict(facts.clocks())})
        elif "facts" in message:
            channel.send({"facts": dataclasses.asdict(facts.collect(self._scratch))})
        elif "preload" in message:
            self._preload = message["preload"]
            self._start_server()
        elif "job" in message:
            self._launch, self._heard, self._beat = message["launch"], time.monotonic(), 0.0
            self._was_stopped = False
            job = message["job"]
            if "reference" in job:  # a file of this host, which no other reads
                job["reference"] = str(self._scratch / Path(job["reference"]).name)
            assert self._server is not None
            self._to_server({"job": job, "slice": message["slice"]}, channel)
        elif "stop" in message and message["stop"] == self._launch:
            self._to_server({"stop": message["stop"]}, channel)

    def _to_server(self, message: Message, channel: Channel) -> None:
        assert self._server is not None
        try:
            self._server.channel.send(message)
        except OSError:
            self._replace_server(channel)

    def _forward(self, channel: Channel) -> None:
        """From the fork server to the coordinator: its greeting, the address of a store, or a result."""
        assert self._server is not None
        try:
            messages = self._server.channel.received()
        except Closed:
            self._replace_server(channel)
            return
        for message in messages:
            if not self._warm:
                self._warm = True
                if self._environment is None:
                    hardware: Machine = decode(message, Machine, "machine")
                    self._environment = environment.collect(hardware, server_environment(), source.collect([]))
                channel.send({"machine": message, "environment": self._environment})
            elif "store" in message:
                channel.send(message)
            else:
                channel.send({"launch": self._launch, "result": message})
                self._launch = None

    def _check_launch(self, channel: Channel, looked_s: float) -> None:
        """Sends a heartbeat when one is due. Raises CoordinatorLost if nothing came for too long until ``looked_s``."""
        if looked_s - self._heard > LOST_S:
            raise CoordinatorLost
        if time.monotonic() - self._beat >= BEAT_S:
            self._send_beat(channel)
            assert self._server is not None
            before, self._was_stopped = self._was_stopped, process_stat.is_stopped(self._server.process.pid)
            if before and self._was_stopped:  # once may be a debugger that looks at it
                self._replace_server(channel, "the fork server was stopped by a signal such as SIGSTOP")

    def _send_beat(self, channel: Channel) -> None:
        if self._launch is not None:
            self._beat = time.monotonic()
            channel.send({"beat": self._launch})

    def _replace_server(self, channel: Channel, reason: str = "") -> None:
        """Starts another fork server; the launch that it ran, if any, has failed."""
        assert self._server is not None
        last, process = self._server.last_line(), self._server.process
        self._send_beat(channel)
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILLED_S)
        self._send_beat(channel)
        self._server.close(kill=True)  # which takes long if a rank does not end
        ending = reason or f"the fork server ended with code {process.returncode} ({last})"
        if self._launch is not None:
            result: LaunchResult[Any] = LaunchResult("failed", f"{ending}; a new one was started", by_chance=True)
            channel.send({"launch": self._launch, "result": dataclasses.asdict(result)})
            self._launch = None
        elif not self._warm:
            channel.send({"failed": f"{ending} while it imported {', '.join(self._preload)}"})
            self._server = None
            return
        self._start_server()

    def _start_server(self) -> None:
        self._server, self._warm, self._launch = ServerProcess(self._preload), False, None

    def _end_server(self) -> None:
        """Ends the fork server with its ranks: at once if it is busy, as a launch then has no coordinator."""
        if self._server:
            self._server.close(kill=not self._warm or self._launch is not None)
        self._server, self._warm, self._launch = None, False, None


def scratch_of(address: str, port: int, index: int, secret: str) -> Path:
    """A folder of this user alone. A server that is started again has the same, with the files of the one before."""
    name = secrets.proof(secret, "scratch", f"{address} {port}", str(index))[:16]
    folder = Path(tempfile.gettempdir(), f"bench-host-{name}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    return folder if is_private(folder) else Path(tempfile.mkdtemp(prefix="bench-host-"))


def keep_alive(connection: socket.socket) -> None:
    """Lets the kernel notice within 20 s that the other machine is gone, also while nothing is sent."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 8)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)


def leave_late() -> None:
    """Lets SIGTERM end this process ``LEAVE_S`` later.

    A scheduler that ends a job signals the coordinator too, which ends the sweep and sends the hosts away. A host that
    left at once would first fail the launch.
    """

    def leave(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGALRM, leave)
    signal.signal(signal.SIGTERM, lambda *_: signal.setitimer(signal.ITIMER_REAL, LEAVE_S))


def main(arguments: list[str]) -> None:
    address, port, index, *interface = arguments
    secret = sys.stdin.readline().strip()
    outlive_parent()
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # the coordinator decides
    leave_late()
    number = index if index.isdecimal() else os.environ[index]
    status = HostServer(address, int(port), int(number), secret, *interface).run()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
