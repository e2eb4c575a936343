"""The environment of a sweep: hardware, versions, variables and source, to trace a number to its machine."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import psutil

from bench.measure.machine import energy, limits, nvml, topology
from bench.measure.machine.command import without_folders
from bench.measure.machine.torch_build import Machine
from results.distorting import DISTORTING
from results.environment import Environment, Git, GpuFacts
from results.secrets import NAME, without_secrets
from results.source import Source

PACKAGES = (
    *("torch", "torchvision", "triton", "deepspeed", "horovod", "accelerate", "lightning-fabric"),
    *("numpy", "scikit-learn", "pandas", "psutil", "hydra-core", "omegaconf"),
    *("mlflow", "mlflow-skinny", "nvidia-ml-py", "ddp-zero-bench"),
)

PREFIXES = (
    *("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "GLOO_", "NCCL_", "TORCH_", "PYTORCH_", "TORCHINDUCTOR_"),
    *("CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "DS_", "HOROVOD_"),
    *("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "PYTHONHASHSEED", *DISTORTING),
    *("SLURM_JOB_NUM_NODES", "SLURM_NTASKS", "SLURM_CPUS_PER_TASK", "SLURM_GPUS"),
)
"""Environment variables that change what is measured. No others are kept."""


def collect(machine: Machine, variables: Mapping[str, str], source: Source) -> Environment:
    """The environment of ranks, which get ``variables`` and run ``source``, in JSON types. Needs no torch."""
    return {
        "time": now(),
        "hostname": platform.node(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := package_version(name))},
        "torch": machine.torch,
        "cuda": machine.cuda,
        "cudnn": machine.cudnn,
        "nccl": machine.nccl,
        "cpu_capability": machine.cpu_capability,
        "glibc": " ".join(platform.libc_ver()).strip(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu_model": cpu_model(),
        "cores": limits.usable_cores(),
        "physical_cores": psutil.cpu_count(logical=False),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": list(os.getloadavg()),
        "gpus": gpus(),
        "not_measured": not_measured(source),
        "git": git(source),
        "variables": allowed(variables),
        **topology.collect(),
    }


def git(source: Source) -> Git:
    """The source in a line or two, for reports that do not read the patch; empty outside a checkout."""
    if not source.commit:
        return {}
    return {"commit": source.commit, "dirty": source.dirty, "files": source.digest[:16]}


def allowed(variables: Mapping[str, str]) -> dict[str, str]:
    """Those that change what is measured, without what may be secret and without the folders of paths."""
    return {
        name: without_folders(without_secrets(value))
        for name, value in sorted(variables.items())
        if name.startswith(PREFIXES) and not NAME.search(name)
    }


def now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def package_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def gpus() -> list[GpuFacts]:
    """Every GPU of this machine; empty where there is no driver."""
    return [
        {
            "name": gpu.name,
            "driver_version": gpu.driver_version,
            "memory.total": _rounded(gpu.memory_bytes, 2**20, "MiB"),
            "clocks.max.sm": _rounded(gpu.max_clock_hz, 1e6, "MHz"),
        }
        for gpu in nvml.states()
    ]


def _rounded(value: float | None, scale: float, unit: str) -> str:
    return "unknown" if value is None else f"{value / scale:.0f} {unit}"


def not_measured(source: Source) -> dict[str, str]:
    """Quantities that cannot be measured on this machine, and why."""
    reasons = {
        "energy of the processor": energy.why_not(),
        "commit and patch of the code": source.not_recorded,
        "limits of control groups": limits.read().unreadable,
        "GPUs": nvml.why_not(),
    }
    reasons["links between GPUs"] = "" if reasons["GPUs"] else topology.why_no_links()
    return {what: why for what, why in reasons.items() if why}
