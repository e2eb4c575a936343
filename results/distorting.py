"""Environment variables that make steps slower, or crash them: for debugging, not for measuring."""

from __future__ import annotations

import re
from collections.abc import Mapping

OFF = "|0|false|no|off|none"

DISTORTING = {
    "TORCH_DISTRIBUTED_DEBUG": ("(?!off|0)", "collectives are checked against each other before each call"),
    "TORCH_NCCL_BLOCKING_WAIT": ("", "the host waits for each collective"),
    "NCCL_BLOCKING_WAIT": ("", "the host waits for each collective"),
    "TORCH_NCCL_ENABLE_TIMING": ("", "each collective records events"),
    "TORCH_NCCL_DESYNC_DEBUG": ("", "each collective is logged to the store"),
    "NCCL_DEBUG": ("trace", "NCCL logs each call"),
    "CUDA_LAUNCH_BLOCKING": ("", "the host waits for each kernel"),
    "PYTORCH_NO_CUDA_MEMORY_CACHING": ("", "each allocation goes to the driver"),
    "TORCH_SHOW_CPP_STACKTRACES": ("", "stacks are unwound for each error"),
    "TORCH_CPP_LOG_LEVEL": ("info", "torch logs each call"),
    "TORCH_LOGS": ("", "torch logs what it compiles"),
    "TORCH_COMPILE_DEBUG": ("", "torch writes out what it compiles"),
    "MKL_VERBOSE": ("", "oneMKL logs each call"),
    "DNNL_VERBOSE": ("", "oneDNN logs each call"),
    "ONEDNN_VERBOSE": ("", "oneDNN logs each call"),
    "PYTHONMALLOC": ("(?!default$|pymalloc$)", "Python allocates in another way"),
    "PYTHONDEVMODE": ("", "Python checks itself as it runs"),
    "PYTHONTRACEMALLOC": ("", "Python records each allocation"),
    "PYTHONDUMPREFS": ("", "Python keeps track of all objects"),
    "MALLOC_CHECK_": ("", "malloc checks the heap in each call"),
    "MALLOC_PERTURB_": ("", "malloc overwrites what it hands out"),
    "LD_PRELOAD": (r".*(asan|tsan|ubsan|msan|lsan|hwasan|valgrind|efence|duma|memcheck)", "a sanitizer watches memory"),
    "CUDA_INJECTION64_PATH": ("", "a tool is injected into CUDA"),
}
"""By variable: which of its values distort (a pattern that they begin with; empty: any that is not off), and how."""


def distorting(variables: Mapping[str, str]) -> dict[str, str]:
    """Of ``variables``, those that distort measurements, with what they do."""
    return {
        name: what
        for name, (pattern, what) in DISTORTING.items()
        if name in variables
        and not re.fullmatch(OFF, variables[name].strip(), re.IGNORECASE)
        and re.match(pattern, variables[name].strip(), re.IGNORECASE)
    }
