"""Imports deepspeed without what it does not need here. The first import in a process, before any other of it."""

from __future__ import annotations

import logging
import os
import sys

os.environ.setdefault("DS_IGNORE_CUDA_DETECTION", "1")
_mlflow = sys.modules.get("mlflow")
sys.modules["mlflow"] = None  # type: ignore[assignment]  # its autotuner would import it, whose threads forbid a fork
try:
    import deepspeed
    import deepspeed.ops
    import deepspeed.utils
finally:
    del sys.modules["mlflow"]
    if _mlflow:
        sys.modules["mlflow"] = _mlflow

deepspeed.utils.logger.setLevel(logging.ERROR)
# A shared-memory all-reduce for inference: training never calls it, and it would be compiled at start.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

__all__ = ["deepspeed"]
