"""How a rank's process comes to be: forked from the server, or spawned where that must not fork."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.job import Job
from bench.launch import interpreter
from bench.launch.forkserver.rank_handle import Rank
from bench.launch.forkserver.rank_main import report, run_rank
from bench.messages import job_message, read_job
from bench.placement import Placement, Rendezvous
from results.decode import decode

GPU_DRIVER = Path("/dev/nvidiactl")


def fork_obstacle(process: str = "the fork server") -> str | None:
    """Why this process, which is called ``process``, must not fork ranks; None if it may."""
    import torch

    if torch.cuda.is_initialized():
        return f"CUDA was initialised in {process}"
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        return f"{process} has {threads} threads"
    if GPU_DRIVER.exists() and forks_lack_cuda():
        return f"the driver of CUDA was initialised in {process}"
    return None


def forks_lack_cuda() -> bool:
    """Whether ranks forked from here could not use CUDA. Asking the driver for GPUs is enough; only a fork can tell."""
    import torch

    pid = os.fork()
    if pid == 0:
        os._exit(int(torch.cuda._is_in_bad_fork()))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0


@contextlib.contextmanager
def pipes() -> Iterator[tuple[int, int, int, int]]:
    """A rank's pipes for its result and its log: what the server reads, and what the rank writes, of each.

    The rank's ends are closed at the end of the block; the server's too if no rank was started in it.
    """
    result_read, result_write = os.pipe()
    try:
        log_read, log_write = os.pipe()
    except OSError:
        os.close(result_read)
        os.close(result_write)
        raise
    try:
        yield result_read, log_read, result_write, log_write
    except BaseException:
        os.close(result_read)
        os.close(log_read)
        raise
    finally:
        os.close(result_write)
        os.close(log_write)


def fork_rank(job: Job[Any], number: int, placement: Placement, rendezvous: Rendezvous) -> Rank:
    server = os.getpid()
    with pipes() as (result_read, log_read, result_write, log_write):
        pid = os.fork()
        if pid == 0:
            try:
                report(result_write, lambda: run_rank(job, number, placement, rendezvous, server, log_write))
            finally:
                os._exit(70)  # report() has left already; nothing may return into the server's stack
        return Rank(number, pid, result_read, log_read)


def spawn_rank(job: Job[Any], number: int, placement: Placement, rendezvous: Rendezvous) -> Rank:
    with pipes() as (result_read, log_read, *theirs):
        listener = () if rendezvous.listener is None else (rendezvous.listener.fileno(),)
        fds = (*theirs, *listener)
        documents = (job_message(job), dataclasses.asdict(placement), [rendezvous.address, rendezvous.port])
        arguments = [*map(json.dumps, documents), str(number), str(os.getpid()), *map(str, fds)]
        process = subprocess.Popen(
            [*interpreter.runs("bench.launch.forkserver"), "rank", *arguments],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
        )
        return Rank(number, process.pid, result_read, log_read)


def spawned_rank(arguments: list[str]) -> None:
    """Entry of a rank that was spawned rather than forked."""
    job = read_job(json.loads(arguments[0]))
    placement = decode(json.loads(arguments[1]), Placement, "placement")
    number, server, result_fd, log_fd, *listener = map(int, arguments[3:])
    sockets = [socket.socket(fileno=fd) for fd in listener]
    rendezvous = Rendezvous(*json.loads(arguments[2]), *sockets)
    report(result_fd, lambda: run_rank(job, number, placement, rendezvous, server, log_fd))
