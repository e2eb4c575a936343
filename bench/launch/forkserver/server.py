"""The fork server: it imports the modules of ranks, describes the machine, and runs one job after another."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import sys
import time
from typing import Any

from bench import causes
from bench.job import Job, LaunchResult, WorkloadJob
from bench.launch.channel import Channel, Closed
from bench.launch.forkserver.launch import ForkedLaunch
from bench.launch.forkserver.start import fork_obstacle
from bench.launch.forkserver.templates import Cancelled, LoadFailed, Templates
from bench.launch.orphans import end_orphans
from bench.measure.machine.torch_build import Machine
from bench.messages import read_job
from bench.placement import Slice
from results.decode import decode


def serve(lifeline: Channel) -> None:
    """Answers one request after another until the parent is gone."""
    started = time.perf_counter()
    for module in lifeline.receive():
        importlib.import_module(module)
    # What is imported lives as long as the server: out of the collector's sight, its pages stay shared with the
    # ranks, and a rank's collection (before each timed block) visits only what the rank itself made.
    gc.collect()
    gc.freeze()
    lifeline.send(dataclasses.asdict(machine(time.perf_counter() - started)))
    with contextlib.closing(Templates(lifeline)) as templates, contextlib.suppress(Cancelled, Closed):
        while True:
            request = lifeline.receive()
            if "stop" not in request:  # of a launch that had ended before it arrived
                lifeline.send(dataclasses.asdict(launched(request, lifeline, templates)))
    end_orphans()  # what a factory started in its template


def launched(request: dict[str, Any], lifeline: Channel, templates: Templates) -> LaunchResult[Any]:
    """Runs the ranks of a job that are this host's. The workload is loaded before, so that ranks inherit its data: here
    if it is the suite's own, which changes nothing of this process; else in a process of its own."""
    job = read_job(request.get("job", request))
    part = decode(request["slice"], Slice, "slice") if "slice" in request else Slice([job.world_size], 0, job.servers)
    try:
        obstacle = fork_obstacle()
        if obstacle:
            return ForkedLaunch(job, part, lifeline, templates.pids, why_spawn=obstacle).run()
        preload_workload(job)
        template, why_not = templates.of(job, part)
        return ForkedLaunch(job, part, lifeline, templates.pids, template, loaded_by_ranks=why_not).run()
    except LoadFailed as error:
        return error.result
    except OSError as error:
        return LaunchResult("failed", f"the fork server could not start processes: {causes.in_words(error)}")


def preload_workload(job: Job[Any]) -> None:
    """Loads a built-in workload here. A failure is left to the ranks, which report it."""
    from bench.worker.batches import workload

    if isinstance(job, WorkloadJob) and job.workload.is_built_in:
        imported = len(sys.modules)
        with contextlib.suppress(Exception, SystemExit):
            workload(job.workload)
        if len(sys.modules) > imported:
            gc.collect()
            gc.freeze()


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
