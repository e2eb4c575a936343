"""The frame of a rank's work: it prepares the process, and reports the result or the error."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from bench import causes
from bench.job import Job
from bench.launch.prctl import die_with_parent, name_process
from bench.placement import Placement, Rendezvous

PIPE_CLOSED = 71
"""Exit code of a rank whose pipe for the result was closed by something within it."""


def prepare_process(name: str, server: int, log_fd: int) -> None:
    """In a process of the server's: a name, die with it, own process group, all output into the log, stacks on
    SIGUSR1."""
    import faulthandler

    name_process(name)
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


def run_rank(
    job: Job[Any], number: int, placement: Placement, rendezvous: Rendezvous, server: int, log_fd: int
) -> dict[str, Any]:
    """The result of a prepared rank, in JSON types. A spawned rank is prepared before it waits for torch."""
    prepare_process(f"bench rank {number}", server, log_fd)
    from bench import messages, worker

    return messages.result_message(worker.run(job, number, placement, rendezvous))


def report(result_fd: int, run: Callable[[], dict[str, Any]]) -> None:
    """Runs a rank's work, sends its result or its error through the pipe, and leaves the process at once.

    ``os._exit`` skips the destructors on purpose: dropping a DDP module after its process group can deadlock.
    """
    code = 0
    try:
        data = json.dumps(run()).encode()
    except BaseException as error:
        with contextlib.suppress(OSError):
            traceback.print_exc()
        data = json.dumps({"error": describe_error(error)}).encode()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed by the workload; what it computed counts
            stream.flush()
    try:
        while data:
            data = data[os.write(result_fd, data) :]
    except OSError:
        code = PIPE_CLOSED
    os._exit(code)


def describe_error(error: BaseException) -> dict[str, str]:
    """An exception as a status, its type and the first line of its message."""
    from bench.engines.spec import EngineUnavailable, EngineUnsupported
    from bench.worker import WorkloadError

    lines = str(error).strip().splitlines() or [""]
    status = "failed"
    if isinstance(error, WorkloadError) and error.__cause__ and lacks_memory(error.__cause__):
        status = "oom"  # while the model was built
    elif isinstance(error, EngineUnsupported | WorkloadError):
        status = "unsupported"
    elif isinstance(error, EngineUnavailable):
        status = "unavailable"
    elif lacks_memory(error):
        status = "oom"
    return {"status": status, "type": type(error).__name__, "message": message_of(error, lines[0])}


def lacks_memory(error: BaseException) -> bool:
    """Whether an allocator raised it, by its type or its words."""
    words = (
        *("can't allocate memory", "cannot allocate memory", "bad_alloc", "out of memory"),
        "cublas_status_alloc_failed",  # no room next to the caching allocator's
    )
    text = str(error).lower()
    is_named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return is_named or any(part in text for part in words)


def message_of(error: BaseException, line: str) -> str:
    """The first line of an error, with the failed system call if that was the cause."""
    cause = causes.system_error(error)
    if cause is error:
        return causes.in_words(cause)[:500]
    why = causes.in_words(cause) if cause else causes.in_text(str(error))
    return (f"{line[:250]}: {why}" if why else line)[:500]
