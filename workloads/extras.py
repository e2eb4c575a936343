"""Libraries that are not installed with the suite: one line says which extra has one."""

from __future__ import annotations

import importlib
from types import ModuleType

from workloads.base import WorkloadError


def require(extra: str, library: str) -> ModuleType:
    """The library. Raises WorkloadError with the command that installs it."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        missing = error.name == library
        why = "is not installed" if missing else f"cannot be imported ({error})"
        raise WorkloadError(
            f"workload={extra} needs {library}, which {why}; pip install 'ddp-zero-bench[{extra}]'"
        ) from error
