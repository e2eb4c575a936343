"""A process that a person's factory runs in: forked from the server, it loads the workload and then forks its ranks.

    server  --fork-->  template (loads the workload once)  --fork-->  one intermediate per launch  --fork-->  ranks

The intermediate process exits once all ranks exist: the kernel then makes them children of the server, which adopts
orphans. So the server waits for them as for ranks that it forks itself, whatever a factory does to its process.
Messages are JSON over a socket pair that keeps their bounds, with descriptors attached.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from bench.job import Job, WorkloadSpec
from bench.launch.forkserver.rank_main import prepare_process, report, run_rank
from bench.launch.forkserver.start import fork_obstacle
from bench.messages import job_message, read_job
from bench.network import lab
from bench.placement import Placement, Rendezvous
from results.decode import decode

NAME = "bench workload"
"""Of the process, for ps."""
MOST_BYTES = 1 << 20
MOST_DESCRIPTORS = 8
ADOPTED_WITHIN_S = 60.0
"""How long a rank waits for the server to become its parent; its siblings are forked meanwhile."""


def send(channel: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    socket.send_fds(channel, [json.dumps(message).encode()], descriptors)


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A message and its descriptors; an empty one once the other side is gone."""
    data, descriptors, _, _ = socket.recv_fds(channel, MOST_BYTES, MOST_DESCRIPTORS)
    message: dict[str, Any] = json.loads(data) if data else {}
    return message, list(descriptors)


def template(spec: WorkloadSpec, channel: socket.socket, server: int, log_fd: int) -> None:
    """Loads the workload, reports the outcome, then forks a process per launch until the server is gone."""
    prepare_process(NAME, server, log_fd)
    send(channel, {"loaded": load(spec), "obstacle": fork_obstacle("the process that loaded the workload")})

    def wait_for(pid: int) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    fork_each(channel, "job", lambda message, _: intermediate(read_job(message["job"]), channel, server), wait_for)


def fork_each(
    channel: socket.socket,
    kind: str,
    child: Callable[[dict[str, Any], list[int]], None],
    parent: Callable[[int], None],
) -> None:
    """Forks ``child`` for each message with ``kind``, until there is one without or the other side is gone.

    ``child`` gets the message and its descriptors, ``parent`` the pid. A fork that fails is answered with its error.
    """
    while True:
        message, descriptors = receive(channel)
        if kind not in message:
            return
        try:
            pid = os.fork()
        except OSError as error:
            send(channel, {"errno": error.errno})
        else:
            if pid == 0:
                try:
                    child(message, descriptors)
                finally:
                    os._exit(70)
            parent(pid)
        for fd in descriptors:
            os.close(fd)


def load(spec: WorkloadSpec) -> bool:
    """Whether the workload could be loaded. A failure is left to the ranks, which report it.

    What it imports is put out of the collector's sight, as in the server: else each collection of each rank visits it.
    """
    from bench.worker.batches import workload

    try:
        workload(spec)
    except (Exception, SystemExit):
        return False
    gc.collect()
    gc.freeze()
    return True


def intermediate(job: Job[Any], channel: socket.socket, server: int) -> None:
    """Forks the ranks of one launch, one a message."""
    send(channel, {"intermediate": os.getpid()})

    def rank(message: dict[str, Any], descriptors: list[int]) -> None:
        channel.close()
        begin_rank(job, message, descriptors, server)

    fork_each(channel, "rank", rank, lambda pid: send(channel, {"pid": pid}))


def begin_rank(job: Job[Any], message: dict[str, Any], descriptors: list[int], server: int) -> None:
    """In the rank: moves to its host of the lab, becomes the server's child, and runs."""
    result_fd, log_fd, *others = descriptors
    listener = socket.socket(fileno=others.pop()) if message["listens"] else None
    for space in others:
        lab.enter(space)
    wait_for_parent(server)
    address, port = message["store"]
    rendezvous = Rendezvous(address, port, listener)
    placement = decode(message["placement"], Placement, "placement")
    report(result_fd, lambda: run_rank(job, message["rank"], placement, rendezvous, server, log_fd))


def wait_for_parent(server: int) -> None:
    deadline = time.monotonic() + ADOPTED_WITHIN_S
    while os.getppid() != server and time.monotonic() < deadline:
        time.sleep(0.0005)


def as_message(job: Job[Any]) -> dict[str, Any]:
    return {"job": job_message(job)}
