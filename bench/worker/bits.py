"""Tensors compared by their bits, so that NaN equals NaN: directly, or by a sum over the bits of each."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.measure.memory.step import stored

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
CHUNK = 1 << 16
"""Elements that are summed up at once, in half a MiB."""


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape, dtype and bits, wherever they lie."""
    if one.shape != other.shape or one.dtype != other.dtype or one.layout != other.layout:
        return False
    pairs = zip(stored(one.detach()), stored(other.detach()), strict=True)
    return all(a.shape == b.shape and torch.equal(integers(a), integers(b)) for a, b in pairs)


def bits_sum(tensor: Tensor) -> int:
    """The sum of the bits of all elements that this rank has of a tensor, read as integers; exact."""
    total = 0
    for part in stored(tensor.detach()):
        whole = integers(part)
        by_stride = sorted(range(whole.dim()), key=whole.stride, reverse=True)  # flat without a copy if it is dense
        chunks = whole.permute(by_stride).reshape(-1).split(CHUNK)
        total += sum(int(chunk.sum(dtype=torch.int64)) for chunk in chunks)
    return total


def integers(tensor: Tensor) -> Tensor:
    """The same memory as integers."""
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.view(INTEGERS[real.element_size()])
