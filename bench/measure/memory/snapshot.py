"""The snapshot of CUDA's caching allocator that pytorch.org/memory_viz opens. Torch's interface to it is private."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

MAX_ENTRIES = 200_000
"""Allocations and releases that the allocator keeps; older ones are dropped."""


@contextmanager
def history(device: torch.device) -> Iterator[None]:
    """The allocator keeps its history within the block; nothing changes on a CPU."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.memory._record_memory_history(max_entries=MAX_ENTRIES, stacks="python")
    try:
        yield
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)


def write(path: Path) -> None:
    """Writes the history so far. Raises OSError."""
    torch.cuda.memory._dump_snapshot(str(path))
