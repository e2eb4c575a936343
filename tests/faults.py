"""Faulty workloads: a rank that fails in its loss, and factories that end their process or change its global state."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from workloads.base import Batch, DataInfo, WorkloadInfo, reseeded

DAEMON = "a rank of the tests has left this behind"
"""What is found on the command line of a process that must not outlive its rank."""


class Faulty:
    """A small linear model. ``how`` is what happens on ``rank``: see ``inject``; ``none`` is a sound workload."""

    def __init__(self, *, seed: int, data_dir: str | None, how: str, rank: int = 0) -> None:
        self.seed = seed
        self.how = how
        self.rank = rank
        self.info = WorkloadInfo("faulty", "sample", 1, DataInfo("ones", synthetic=True, samples=64))

    def build(self) -> nn.Module:
        with reseeded(self.seed):
            return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))

    def units(self, module: nn.Module) -> list[nn.Module]:
        assert isinstance(module, nn.Sequential)
        return [module[0], module[2]]

    def batch(self, indices: Sequence[int]) -> Batch:
        return (torch.tensor([[float(index % 64)] * 8 for index in indices]) / 64,)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        output = module(batch[0])  # first, so that a stand-in for the module, which learns what a loss uses, ends here
        if dist.is_initialized() and dist.get_rank() == self.rank:
            inject(self.how)
        elif dist.is_initialized() and self.how == "leave":
            hang_here()  # so that it is not noticed by the others
        return (output - batch[0]).square().mean()


def quits(**_: object) -> Faulty:
    """A factory that ends the process, as a script does whose arguments are missing."""
    sys.exit(3)


def inject(how: str) -> None:
    if how == "raise":
        raise RuntimeError("the model is broken")
    if how == "exit":
        print("leaving early", file=sys.stderr, flush=True)
        os._exit(3)
    if how == "leave":
        os._exit(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "crash":
        ctypes.string_at(0)
    if how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "close output":
        os.closerange(0, 3)
    if how == "close all":
        os.closerange(0, 1024)
    if how == "abort":
        print("terminate called after throwing: Too many open files", file=sys.stderr, flush=True)
        os.abort()
    if how == "noise":
        sys.stderr.write("\x1b]0;owned\x07\x1b[31mred\x00\r\n")
        raise RuntimeError("\x1b[31mred\x00 alert")
    if how == "hang":
        hang_here()
    if how == "exhaust":
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        # The soft limit alone, since a loss may be tried before it is trained, and with room for a thread's heap.
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (in_use + (1 << 30), hard))
        torch.ones(1 << 31)
    if how == "children":
        if os.fork() == 0:
            hang_here()
        raise RuntimeError("left a child behind")
    if how == "daemon":
        subprocess.Popen(["yes", DAEMON], start_new_session=True)
        raise RuntimeError("left a daemon behind")
    if how == "nameless daemon":
        command = ["/bin/sh", "-c", "sleep 60; :", DAEMON]
        subprocess.Popen(command, start_new_session=True, env={}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def hang_here() -> None:
    time.sleep(3600)


def harmless(*, seed: int, data_dir: str | None) -> Faulty:
    return Faulty(seed=seed, data_dir=data_dir, how="none")


def float64(**given: Any) -> Faulty:
    torch.set_default_dtype(torch.float64)
    return harmless(**given)


def no_gradients(**given: Any) -> Faulty:
    torch.set_grad_enabled(False)
    return harmless(**given)


def meta_device(**given: Any) -> Faulty:
    torch.set_default_device("meta")
    return harmless(**given)


def many_threads(**given: Any) -> Faulty:
    torch.set_num_threads(7)
    return harmless(**given)


def ignored_children(**given: Any) -> Faulty:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    return harmless(**given)


def elsewhere(**given: Any) -> Faulty:
    os.chdir("/")
    return harmless(**given)


def patched_linear(**given: Any) -> Faulty:
    own = torch.nn.functional.linear

    def linear(*arguments: Any) -> torch.Tensor:
        return own(*arguments)

    torch.nn.functional.linear = linear  # type: ignore[assignment]
    return harmless(**given)


def running_thread(**given: Any) -> Faulty:
    threading.Thread(target=time.sleep, args=(3600,), name="left behind", daemon=True).start()
    return harmless(**given)


def leaves(**_: Any) -> Faulty:
    os._exit(0)


def endless(**_: Any) -> Faulty:
    while True:
        time.sleep(0.01)


class LateFloat64(Faulty):
    """Changes the dtype only when a module is built, in the rank."""

    def __init__(self, *, seed: int, data_dir: str | None) -> None:
        super().__init__(seed=seed, data_dir=data_dir, how="none")

    def build(self) -> torch.nn.Module:
        module = super().build()
        torch.set_default_dtype(torch.float64)
        return module
