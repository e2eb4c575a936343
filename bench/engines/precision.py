"""What each precision means: dtypes of weights and of computation, and casting of inputs."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from bench.engines.base import Batch
from bench.engines.batches import map_tensors
from results.precision import PRECISIONS

AUTOCAST = {name: getattr(torch, precision.compute) for name, precision in PRECISIONS.items() if precision.autocast}
"""Precisions that compute in a lower dtype over fp32 weights."""


def weight_dtype(precision: str) -> torch.dtype:
    """The dtype that forward and backward see the weights in."""
    dtype: torch.dtype = getattr(torch, PRECISIONS[precision].weights)
    return dtype


def cast_module(module: nn.Module, precision: str) -> nn.Module:
    """The module with weights and buffers in bf16 for bf16 precisions; otherwise as it was built."""
    return module.to(torch.bfloat16) if weight_dtype(precision) == torch.bfloat16 else module


def autocast(precision: str, device_type: str) -> contextlib.AbstractContextManager[object]:
    """The context of forward: autocast for amp_*, else nothing."""
    if precision in AUTOCAST:
        return torch.autocast(device_type, AUTOCAST[precision])
    return contextlib.nullcontext()


def cast_inputs(batch: Batch, dtype: torch.dtype) -> Batch:
    """Floating-point tensors of ``batch`` in ``dtype``; indices and labels as they are."""
    if dtype == torch.float32:
        return batch
    return map_tensors(batch, lambda entry: entry.to(dtype) if entry.is_floating_point() else entry)
