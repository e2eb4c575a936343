"""Devices that torch sees, and how torch was built."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """The part of the environment that only torch knows, read by the fork server."""

    torch: str
    cuda_devices: int
    nccl: str | None
    warm_up_s: float
    mpi: bool = False
    """Whether torch was built with MPI."""
    cuda: str | None = None
    """The CUDA that torch was built with."""
    cudnn: str | None = None
    cpu_capability: str = ""
    """The vector instructions that torch's own kernels use here, which decide the order of their sums."""
