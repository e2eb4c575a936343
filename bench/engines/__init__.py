"""Engines: one package each (see ``base``), named in conf/engine/; a user's own may live anywhere on Python's path.

What an engine refuses and what its ranks import are asked of its package here, without importing torch.
"""

from __future__ import annotations

import contextlib
import importlib
from types import ModuleType

from bench.engines.spec import EngineSpec, EngineUnsupported


def load(package: str) -> ModuleType:
    """The engine's package. Raises EngineUnsupported, naming it, if it cannot be imported or is no engine."""
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise EngineUnsupported(f"engine.package={package} cannot be imported ({error})") from error
    missing = [name for name in ("refuse", "PRELOAD") if not hasattr(module, name)]
    if missing:
        raise EngineUnsupported(f"engine.package={package} is not an engine: it lacks {' and '.join(missing)}")
    return module


def refuse(package: str, spec: EngineSpec) -> None:
    """Raises EngineUnsupported or EngineUnavailable if the engine cannot honour ``spec``."""
    load(package).refuse(spec)


def preload(*packages: str) -> tuple[str, ...]:
    """Modules that the engines' ranks need and that the fork server can import once; none of a broken package."""
    found: dict[str, None] = {}
    for package in packages:
        with contextlib.suppress(EngineUnsupported):
            found |= dict.fromkeys((*load(package).PRELOAD, f"{package}.adapter"))
    return tuple(found)
