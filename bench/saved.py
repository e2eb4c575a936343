"""Writing tensors to a file, with a clear error on a full disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bench import causes


def save(document: dict[str, Any], path: Path) -> None:
    """``torch.save`` that raises an OSError with the path where the system refused to write.

    Given a path, torch writes by C++ and turns a full disk into "unexpected pos 4800 vs 4688".
    """
    try:
        with path.open("wb") as file:
            torch.save(document, file)
    except (OSError, RuntimeError) as error:
        cause = causes.system_error(error)
        if cause is None:
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error
