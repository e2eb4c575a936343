"""Factories that change what is global, and return a sound workload if they return."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import torch

from tests.faults import Faulty


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
