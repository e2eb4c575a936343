"""Parameters as views of a flat tensor: each keeps its shape and strides, so kernels see channels_last as before."""

from __future__ import annotations

import torch
from torch import Tensor


def dense_strides(tensor: Tensor) -> tuple[int, ...]:
    """The tensor's own strides if its elements are dense in memory, else those that torch gives a copy of it."""
    return torch.empty_like(tensor, device="meta", memory_format=torch.preserve_format).stride()


def view_like(elements: Tensor, tensor: Tensor) -> Tensor:
    """A view of ``elements`` (flat, as many as ``tensor`` has) in the shape and the strides of ``tensor``."""
    return elements.as_strided(tensor.shape, dense_strides(tensor))


def flat(tensor: Tensor) -> Tensor:
    """The elements of ``tensor`` in their order in memory: a view if they are dense, else a copy."""
    if tensor.stride() != dense_strides(tensor):
        tensor = torch.empty_like(tensor, memory_format=torch.preserve_format).copy_(tensor)
    return tensor.as_strided((tensor.numel(),), (1,))
