"""Composes cells, launches ranks, measures them and writes records."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

__version__ = "0.1.0"
OWN = ("analysis", "bench", "claims", "results", "terminal", "workloads")
"""The packages of this suite. One of a person's own with such a name, in the folder they start in, is not imported."""


class OwnPackages(importlib.abc.MetaPathFinder):
    """Finds the packages of this suite where this one lies, whatever comes first on Python's path."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if path is not None or name not in OWN:
            return None
        return importlib.machinery.PathFinder.find_spec(name, [str(Path(__file__).resolve().parent.parent)])


if not any(type(finder).__name__ == OwnPackages.__name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, OwnPackages())
