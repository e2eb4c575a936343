"""Another Python that runs a module of this suite, whatever packages the folder has that it starts in."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BOOT = """\
import importlib.util, os, runpy, sys
root, module = sys.argv[1:3]
spec = importlib.util.spec_from_file_location("bench", os.path.join(root, "bench", "__init__.py"))
sys.modules["bench"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["bench"])
if sys.path[0] == "":
    sys.path[0] = os.getcwd()
elif os.getcwd() not in sys.path:
    sys.path.append(os.getcwd())
sys.argv[:3] = [module]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
"""Imports ``bench`` from its place. That makes all packages of the suite come from there (``bench.OwnPackages``)."""


def runs(module: str) -> list[str]:
    """The first words of a command that runs ``module`` as ``python -m`` does; its arguments follow."""
    return [sys.executable, "-c", BOOT, str(ROOT), module]
