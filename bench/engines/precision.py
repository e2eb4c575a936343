"""Precisions: dtypes of weights and of computation, and casting of inputs."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from bench.engines.base import Batch
from bench.engines.batches import map_tensors
from bench.engines.spec import EngineUnsupported
from results.precision import PRECISIONS

AUTOCAST = {name: getattr(torch, precision.compute) for name, precision in PRECISIONS.items() if precision.autocast}
"""Precisions that compute in a lower dtype over fp32 weights."""


def weight_dtype(precision: str) -> torch.dtype:
    """The dtype that forward and backward see the weights in."""
    dtype: torch.dtype = getattr(torch, PRECISIONS[precision].weights)
    return dtype


def cast_module(module: nn.Module, precision: str) -> nn.Module:
    """The module with weights and buffers in bf16 for bf16 precisions; otherwise as it was built.

    Raises EngineUnsupported for weights that are built in fewer bits than the precision says.
    """
    reject_narrow(module, precision)
    return module.to(torch.bfloat16) if weight_dtype(precision) == torch.bfloat16 else module


def widen_weights(module: nn.Module) -> None:
    """Makes fp32 master weights of the module's bf16 weights; they begin from the rounded values."""
    for weight in module.parameters():
        weight.data = weight.data.float()


def reject_narrow(module: nn.Module, precision: str) -> None:
    """Raises EngineUnsupported where ``precision`` has fp32 weights and the module was built with 16 bits or fewer."""
    narrow = narrow_parameter(module)
    if narrow and weight_dtype(precision) == torch.float32:
        dtype = str(module.get_parameter(narrow).dtype).removeprefix("torch.")
        raise EngineUnsupported(
            f"precision={precision} trains fp32 weights, but the module was built with {narrow} in {dtype}; "
            "valid: precision=bf16 or bf16_master (all weights in bf16), or a module built in fp32"
        )


def narrow_parameter(module: nn.Module) -> str | None:
    """The name of the first floating-point parameter of fewer than 32 bits; None if there is none."""
    weights = ((name, weight) for name, weight in module.named_parameters() if weight.is_floating_point())
    return next((name for name, weight in weights if weight.dtype.itemsize < torch.float32.itemsize), None)


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
