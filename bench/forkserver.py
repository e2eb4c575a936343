"""The fork server: imports torch once, then forks every rank of every launch from that warm process.

A launch costs a fork per rank instead of an interpreter and an import of torch. The price is three rules:
the server never touches CUDA, has a single thread whenever it forks, and runs nothing of a rank itself.
Where one of them is broken (a user's module initialised CUDA while it was imported, say), ranks are
spawned instead, and the result says so.

    parent  --Job-->  server  --fork-->  rank 0 .. N-1      (each in a process group of its own)
    parent  <-LaunchResult-  server  <-result pipe, log pipe, pidfd-  ranks

The parent's socket is the server's lifeline: when it closes, for whatever reason, every rank is killed, with all
that it started, and the server leaves. Ranks ask the kernel to be killed when the server dies; the server asks the
same of its parent while it has no ranks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.job import Job, LaunchResult, Machine
from bench.network import Lab, NetworkError
from bench.prctl import adopt_orphans, die_with_parent, outlive_parent
from bench.record import RankEnd, decode
from bench.strays import MARK, end_orphans

LAST_WORDS_BYTES = 4096
GRACE_S = 1.0
"""After the first rank's failure: time for the others to notice it and say so before they are killed."""
STACKS_S = 0.3
"""Time for a rank that still runs to write its stacks before it is killed."""
READS_AT_THE_END = 32
"""More than a pipe can hold; a process that is not a rank may write into it for ever."""


class Cancelled(Exception):
    """The parent asked to end the launch, or is gone."""


class SwitchLost(Exception):
    """The lab's relay ended, and every link with it."""


class Rank:
    """One rank's process as the server sees it."""

    def __init__(self, rank: int, pid: int, result_fd: int, log_fd: int) -> None:
        self.rank = rank
        self.pid = pid
        self.pid_fd = os.pidfd_open(pid)
        self.result_fd = result_fd
        self.log_fd = log_fd
        self.result = bytearray()
        self.log = bytearray()
        self.wait_status: int | None = None
        self.stopped_by_us = False

    def read(self, fd: int) -> bool:
        """Takes what is in a pipe; False once the pipe is closed."""
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return True
        if fd == self.result_fd:
            self.result += data
        else:
            self.log += data
            del self.log[:-LAST_WORDS_BYTES]
        return bool(data)

    def reap(self) -> None:
        self.wait_status = os.waitpid(self.pid, 0)[1]
        self.kill_group(signal.SIGKILL)  # whatever the rank itself had started

    def kill_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return

    def answer(self) -> dict[str, Any]:
        """What the rank reported: its result, or an ``error``. Empty if it died before it could."""
        try:
            answer = json.loads(self.result)
        except ValueError:
            return {}
        return answer if isinstance(answer, dict) else {}

    def ending(self) -> str:
        if self.stopped_by_us:
            return "stopped by the launcher"
        assert self.wait_status is not None
        code = os.waitstatus_to_exitcode(self.wait_status)
        if code < 0:
            return f"killed by signal {-code} ({signal.Signals(-code).name})"
        error = self.answer().get("error")
        return f"{error['type']}: {error['message']}" if error else f"exited with code {code}"

    def end(self) -> RankEnd:
        return RankEnd(self.rank, self.ending(), self.log.decode(errors="replace").strip())

    def close(self) -> None:
        for fd in (self.pid_fd, self.result_fd, self.log_fd):
            os.close(fd)


class Launch:
    """All ranks of one job, from the first fork to the last reaped process."""

    def __init__(self, job: Job, lifeline: socket.socket) -> None:
        self.job = job
        self.lifeline = lifeline
        self.ranks: list[Rank] = []
        self.lab: Lab | None = None
        self.selector = selectors.DefaultSelector()
        self.oom_kills = oom_kill_count()

    def run(self) -> LaunchResult:
        started = time.perf_counter()
        why_spawn = fork_obstacle()
        outlive_parent()  # to end what ranks have started, which the kernel would leave; the lifeline tells
        try:
            self._start(why_spawn)
            timed_out = not self._wait(started + self.job.timeout_s)
            result = self._result(timed_out)
        except NetworkError as error:
            result = LaunchResult("unsupported", str(error))
        except SwitchLost:
            self._stop(grace_s=0)
            ends = [rank.end() for rank in self.ranks]
            result = LaunchResult("failed", "network=lab: the process between its hosts ended", ends=ends)
        finally:
            self._clear()
        return dataclasses.replace(
            result,
            total_s=time.perf_counter() - started,
            start_method=f"spawn ({why_spawn})" if why_spawn else "fork",
        )

    def _start(self, why_spawn: str | None) -> None:
        self.selector.register(self.lifeline, selectors.EVENT_READ, None)
        processes = self.job.world_size + self.job.servers
        if self.job.network:
            self.lab = Lab(self.job.network, self._host_of(processes - 1) + 1)
            if self.lab.relay_fd is not None:
                self.selector.register(self.lab.relay_fd, selectors.EVENT_READ, self.lab)
        with self._inside(0) as address, socket.socket() as rendezvous:
            rendezvous.bind((address, 0))
            rendezvous.listen(processes + 8)
            for number in range(processes):
                start = spawn_rank if why_spawn else fork_rank
                with self._inside(number):
                    rank = start(self.job, number, rendezvous)
                self.ranks.append(rank)
                for fd in (rank.pid_fd, rank.result_fd, rank.log_fd):
                    self.selector.register(fd, selectors.EVENT_READ, rank)

    def _host_of(self, number: int) -> int:
        return self.job.network.host_of(number, self.job.world_size) if self.job.network else 0

    def _inside(self, number: int) -> contextlib.AbstractContextManager[str]:
        """The address where a process lives; what is started or opened within the block is there too."""
        return self.lab.inside(self._host_of(number)) if self.lab else contextlib.nullcontext("127.0.0.1")

    def _wait(self, deadline: float) -> bool:
        """Until all ranks have ended, or one has failed and the rest are stopped. False if time ran out."""
        while any(rank.wait_status is None for rank in self.ranks):
            if time.perf_counter() >= deadline:
                self._stop(grace_s=0)
                return False
            self._pump(deadline)
            if any(rank.wait_status not in (None, 0) for rank in self.ranks):
                self._stop(grace_s=GRACE_S)
        return True

    def _pump(self, deadline: float) -> None:
        for key, _ in self.selector.select(max(0.0, deadline - time.perf_counter())):
            if key.data is None:
                raise Cancelled
            if key.data is self.lab:
                self.selector.unregister(key.fd)
                raise SwitchLost
            rank: Rank = key.data
            if key.fd == rank.pid_fd:
                rank.reap()
                self.selector.unregister(key.fd)
            elif not rank.read(key.fd):
                self.selector.unregister(key.fd)

    def _stop(self, grace_s: float) -> None:
        """Ends the ranks that still run: leave them ``grace_s``, ask for their stacks, then kill."""
        self._pump_for(grace_s)
        for number in (signal.SIGUSR1, signal.SIGKILL):
            for rank in self.ranks:
                if rank.wait_status is None:
                    rank.stopped_by_us = True
                    rank.kill_group(number)
            self._pump_for(STACKS_S if number == signal.SIGUSR1 else 10.0)

    def _pump_for(self, seconds: float) -> None:
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline and any(rank.wait_status is None for rank in self.ranks):
            self._pump(deadline)

    def _result(self, timed_out: bool) -> LaunchResult:
        for rank in self.ranks:  # what is still in the pipes of ended ranks
            for fd in (rank.result_fd, rank.log_fd):
                os.set_blocking(fd, False)
                for _ in range(READS_AT_THE_END):
                    if fd not in self.selector.get_map() or not rank.read(fd) or not select_now(fd):
                        break
        answers = [rank.answer() for rank in self.ranks]
        if not timed_out and all("error" not in answer and answer for answer in answers):
            return LaunchResult("ok", ranks=answers[: self.job.world_size], servers=answers[self.job.world_size :])
        ends = [rank.end() for rank in self.ranks]
        if timed_out:
            still = ", ".join(str(rank.rank) for rank in self.ranks if rank.stopped_by_us)
            return LaunchResult(
                "timeout", f"rank {still} still running after timeout_s={self.job.timeout_s:g}", ends=ends
            )
        culprit = min(self.ranks, key=blame)
        error = culprit.answer().get("error", {})
        killed = culprit.wait_status is not None and os.WIFSIGNALED(culprit.wait_status)
        status = error.get("status", "failed")
        reason = f"rank {culprit.rank}: {culprit.ending()}"
        if killed and oom_kill_count() > self.oom_kills:
            status, reason = "oom", f"{reason}; the kernel's out-of-memory killer was at work"
        if status in ("unsupported", "unavailable"):
            reason = error["message"]
        by_chance = killed and status == "failed" and culprit.wait_status == signal.SIGKILL
        return LaunchResult(status, reason, ends=ends, by_chance=by_chance)

    def _clear(self) -> None:
        for rank in self.ranks:
            if rank.wait_status is None:
                rank.kill_group(signal.SIGKILL)
                rank.reap()
            rank.close()
        self.selector.close()
        if self.lab:
            self.lab.close()
        end_orphans(os.environ[MARK])
        die_with_parent(os.getppid())


def blame(rank: Rank) -> tuple[int, int]:
    """Orders ended ranks by how likely each is the cause: a lost peer makes the others raise, not die."""
    if rank.stopped_by_us:
        return (4, rank.rank)
    assert rank.wait_status is not None
    if os.WIFSIGNALED(rank.wait_status):
        return (0, rank.rank)
    error = rank.answer().get("error")
    if error is None:
        return (1 if rank.wait_status else 5, rank.rank)
    lost_peer = any(
        word in error["message"].lower()
        for word in ("connection closed", "connection reset", "peer", "one of the ranks")
    )
    return (3 if lost_peer else 2, rank.rank)


def select_now(fd: int) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        return bool(selector.select(0))


def oom_kill_count() -> int:
    """Processes that the kernel killed for want of memory, of this control group or machine; 0 if it does not say."""
    for place in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        with contextlib.suppress(OSError):
            lines = Path(place).read_text().splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


def fork_obstacle() -> str | None:
    """Why this process must not fork ranks; None if it may."""
    import torch

    if torch.cuda.is_initialized():
        return "CUDA was initialised in the fork server"
    threads = len(os.listdir("/proc/self/task"))
    return f"the fork server has {threads} threads" if threads > 1 else None


def fork_rank(job: Job, number: int, rendezvous: socket.socket) -> Rank:
    result_read, result_write = os.pipe()
    log_read, log_write = os.pipe()
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            prepare_rank(server, log_write)
            report(result_write, lambda: _rank_main(job, number, rendezvous))
        finally:
            os._exit(70)  # report() has left already; nothing may return into the server's stack
    os.close(result_write)
    os.close(log_write)
    return Rank(number, pid, result_read, log_read)


def spawn_rank(job: Job, number: int, rendezvous: socket.socket) -> Rank:
    result_read, result_write = os.pipe()
    log_read, log_write = os.pipe()
    fds = (result_write, log_write, rendezvous.fileno())
    arguments = [json.dumps(dataclasses.asdict(job)), str(number), str(os.getpid()), *map(str, fds)]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.forkserver", "rank", *arguments], pass_fds=fds, stdin=subprocess.DEVNULL
    )
    os.close(result_write)
    os.close(log_write)
    return Rank(number, process.pid, result_read, log_read)


def prepare_rank(server: int, log_fd: int) -> None:
    """In the rank: die with the server, own process group, all output into the log, stacks on SIGUSR1."""
    import faulthandler

    os.setpgid(0, 0)
    die_with_parent(server)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.enable(sys.stderr)
    faulthandler.register(signal.SIGUSR1, sys.stderr, all_threads=True)


def report(result_fd: int, run: Callable[[], dict[str, Any]]) -> None:
    """Runs a rank's work, sends its result or its error through the pipe, and leaves the process at once.

    ``os._exit`` skips the destructors on purpose: dropping a DDP module after its process group can deadlock.
    """
    code = 0
    try:
        data = json.dumps(run()).encode()
    except BaseException as error:
        traceback.print_exc()
        data = json.dumps({"error": describe_error(error)}).encode()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    while data:
        data = data[os.write(result_fd, data) :]
    os._exit(code)


def describe_error(error: BaseException) -> dict[str, str]:
    """An exception as a status, its type and the first line of its message."""
    from bench.engines.spec import EngineUnavailable, EngineUnsupported
    from bench.worker import WorkloadError

    lines = str(error).strip().splitlines() or [""]
    name = type(error).__name__
    text = str(error).lower()
    status = "failed"
    if isinstance(error, EngineUnsupported | WorkloadError):
        status = "unsupported"
    elif isinstance(error, EngineUnavailable):
        status = "unavailable"
    elif (
        isinstance(error, MemoryError)
        or name == "OutOfMemoryError"
        or any(
            words in text for words in ("can't allocate memory", "cannot allocate memory", "bad_alloc", "out of memory")
        )
    ):
        status = "oom"
    return {"status": status, "type": name, "message": lines[0][:500]}


def _rank_main(job: Job, number: int, rendezvous: socket.socket) -> dict[str, Any]:
    from bench import worker

    return worker.run(job, number, rendezvous)


def spawned_rank(arguments: list[str]) -> None:
    """Entry of a rank that was spawned rather than forked."""
    job = decode(json.loads(arguments[0]), Job, "job")
    number, server, result_fd, log_fd, rendezvous_fd = map(int, arguments[1:])
    prepare_rank(server, log_fd)
    report(result_fd, lambda: _rank_main(job, number, socket.socket(fileno=rendezvous_fd)))


def serve(lifeline: socket.socket) -> None:
    """Answers one request after another until the parent is gone."""
    stream = lifeline.makefile("rw", encoding="utf-8")
    started = time.perf_counter()
    for module in json.loads(stream.readline()):
        importlib.import_module(module)
    # What is imported lives as long as the server: out of the collector's sight, its pages stay shared with the
    # ranks, and a rank's collection (before each timed block) visits only what the rank itself made.
    gc.collect()
    gc.freeze()
    send(stream, dataclasses.asdict(machine(time.perf_counter() - started)))
    for line in stream:
        job = decode(json.loads(line), Job, "job")
        try:
            preload_workload(job)
            result = Launch(job, lifeline).run()
        except Cancelled:
            return
        send(stream, dataclasses.asdict(result))


def preload_workload(job: Job) -> None:
    """Loads the workload here so that ranks inherit its data. A failure is left to the ranks, which report it."""
    from bench.worker.shares import workload

    with contextlib.suppress(Exception):
        workload(job.workload)


def machine(warm_up_s: float) -> Machine:
    import torch

    nccl = None
    if torch.distributed.is_nccl_available():
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
    cudnn = torch.backends.cudnn.version() if torch.cuda.device_count() else None
    return Machine(
        torch.__version__,
        torch.cuda.device_count(),
        nccl,
        warm_up_s,
        mpi=torch.distributed.is_mpi_available(),
        cuda=torch.version.cuda,
        cudnn=None if cudnn is None else str(cudnn),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
    )


def send(stream: Any, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def main(arguments: list[str]) -> None:
    if arguments[0] == "rank":
        spawned_rank(arguments[1:])
        return
    die_with_parent(int(arguments[1]))
    adopt_orphans()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        serve(socket.socket(fileno=int(arguments[0])))
    except (BrokenPipeError, ConnectionResetError):
        return


if __name__ == "__main__":
    main(sys.argv[1:])
