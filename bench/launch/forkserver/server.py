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

from bench import causes
from bench.job import Job, LaunchResult, Machine
from bench.launch.forkserver.launch import Launch
from bench.launch.forkserver.start import fork_obstacle
from bench.launch.forkserver.templates import Cancelled, LoadFailed, Templates
from bench.launch.orphans import end_orphans
from results.decode import decode


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
    with contextlib.closing(Templates(lifeline)) as templates:
        for line in stream:
            try:
                result = launched(decode(json.loads(line), Job, "job"), lifeline, templates)
            except Cancelled:
                break
            send(stream, dataclasses.asdict(result))
    end_orphans()  # what a factory started in its template


def launched(job: Job, lifeline: socket.socket, templates: Templates) -> LaunchResult:
    """Runs all ranks of the job. The workload is loaded before, so that ranks inherit its data: here if it is the
    suite's own, which changes nothing of this process; else in a process of its own."""
    try:
        obstacle = fork_obstacle()
        if obstacle:
            return Launch(job, lifeline, templates.pids, why_spawn=obstacle).run()
        preload_workload(job)
        template, why_not = templates.of(job)
        return Launch(job, lifeline, templates.pids, template, loaded_by_ranks=why_not).run()
    except LoadFailed as error:
        return error.result
    except OSError as error:
        return LaunchResult("failed", f"the fork server could not start processes: {causes.in_words(error)}")


def preload_workload(job: Job) -> None:
    """Loads a built-in workload here. A failure is left to the ranks, which report it."""
    from bench.worker.batches import workload

    if job.workload.is_built_in:
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
