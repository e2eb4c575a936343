"""Freed memory in glibc's malloc: kept where time is measured, returned to the system where it is not.

By default malloc hands the end of its heap back to the kernel and maps large blocks again each time. Whether a step's
buffers lie there is drawn with each server, and costs the step page faults. So a server starts with ``KEEP``, which its
ranks inherit, and timed steps find the memory of the step before, as with the caching allocator of a GPU.

A launch that watches memory leaves small blocks of the profiler between the large ones of each step. Kept memory then
has holes that fit no other block, and the process grows to several times its peak.
"""

from __future__ import annotations

import ctypes
import os

KEEP = {"MALLOC_TRIM_THRESHOLD_": str(2**62), "MALLOC_MMAP_MAX_": "0"}

DEFAULTS = {-1: 128 * 1024, -3: 128 * 1024, -4: 65536}
"""By number of ``mallopt`` (<malloc.h>): M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_MMAP_MAX as malloc begins with."""


def settle(*, is_timed: bool) -> None:
    """In a rank, first thing: gives freed memory back unless the launch is timed, or a person chose otherwise."""
    if is_timed or any(os.environ.get(name) != value for name, value in KEEP.items()):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # not glibc, whose variables these are
        return
    for parameter, value in DEFAULTS.items():
        mallopt(parameter, value)
