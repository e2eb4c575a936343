"""The server's life: it warms up, says what it found, and answers one job after another."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import json
import socket
import time
from typing import Any

from bench.forkserver.launch import Cancelled, Launch
from bench.job import Job, Machine
from bench.record import decode


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

    with contextlib.suppress(Exception, SystemExit):
        workload(job.workload)


def machine(warm_up_s: float) -> Machine:
    import torch

    nccl = None
    if torch.distributed.is_nccl_available():
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
    cudnn, devices = None, torch.cuda.device_count()
    if devices:
        from torch._C import _cudnn  # torch.backends.cudnn.version() would initialise CUDA here

        cudnn = _cudnn.getVersionInt()
    return Machine(
        torch.__version__,
        devices,
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
