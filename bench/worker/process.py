"""A rank's process: threads, seeds, determinism and device."""

from __future__ import annotations

from typing import Any

import torch

from bench.engines.spec import EngineUnsupported
from bench.job import CheckJob, Job, WorkloadJob
from bench.launch import malloc
from bench.placement import Placement
from bench.worker.randomness import seed_generators


def prepare_process(job: Job[Any], rank: int, placement: Placement) -> torch.device:
    """Memory, threads, determinism, seeds and the device of this rank; a server stays on the host."""
    malloc.settle(is_timed=job.is_timed)
    torch.set_num_threads(job.threads)
    if isinstance(job, WorkloadJob):
        seed_generators(job)
    torch.use_deterministic_algorithms(job.deterministic)
    if job.device != "cuda" or rank >= job.world_size:
        return torch.device("cpu")
    torch.backends.cudnn.deterministic = job.deterministic
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32, also where TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is set
    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device("cuda", placement.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    if isinstance(job, CheckJob) and job.memory_limit_bytes is not None:
        limit_memory(job.memory_limit_bytes, device)
    return device


def limit_memory(limit_bytes: int, device: torch.device) -> None:
    """Bounds what the caching allocator takes. Raises EngineUnsupported for more than the GPU has."""
    total = torch.cuda.get_device_properties(device).total_memory
    if limit_bytes > total:
        raise EngineUnsupported(
            f"memory_limit is {limit_bytes} bytes, but {device} has {total}; valid: at most that, null (all of it)"
        )
    torch.cuda.set_per_process_memory_fraction(limit_bytes / total, device)
