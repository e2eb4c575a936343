"""The process of a fork server, as its parent sees it: started, spoken to, and ended with all that it started."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from bench.launch import interpreter, malloc
from bench.launch.channel import Channel
from bench.launch.compile_cache import VARIABLE, compile_cache
from bench.launch.orphans import MARK, end_marked

SERVER = "bench.launch.forkserver"


class ServerProcess:
    """A fork server that starts to import ``preload`` at once. Close it to end every process."""

    def __init__(
        self,
        preload: Sequence[str],
        *,
        command: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """``command`` begins another program than ``SERVER``; ``variables`` are added to its environment."""
        self._mark = uuid.uuid4().hex
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        self._errors: Any = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the server)
        with theirs:
            self.process = subprocess.Popen(
                [*(command or interpreter.runs(SERVER)), str(theirs.fileno()), str(os.getpid())],
                pass_fds=(theirs.fileno(),),
                env=server_environment() | dict(variables or {}) | {MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C must not reach it
            )
        self.channel.send(list(preload))

    def last_line(self) -> str:
        """The last line that the server printed."""
        self._errors.seek(0)
        lines: list[str] = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no output"

    def close(self, *, kill: bool = False) -> None:
        """Ends the server and, with it, every rank and what a rank has started. ``kill``: it does not listen."""
        self.channel.close()
        if kill:
            self.process.kill()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()  # the kernel ends its ranks with it
            self.process.wait()
        if self.process.returncode:
            end_marked(self._mark)
        self._errors.close()


def server_environment() -> dict[str, str]:
    """The server's environment, which ranks inherit: one thread while warm and, unless a person chose otherwise,
    collectives that stay on this machine, memory that a step finds again, and what determinism needs from before the
    first line of Python."""
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    unless_chosen = {
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic=true needs it, and CUDA reads it once
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # else torch.cuda.is_available() would forbid forks CUDA
        "PYTHONHASHSEED": "0",  # else sets of strings are walked in another order in each server
        VARIABLE: compile_cache(),
        **malloc.KEEP,
    }
    return unless_chosen | dict(os.environ) | one_thread
