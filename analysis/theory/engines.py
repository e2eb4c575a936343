"""The theory of each engine: ``THEORY`` of the module NAME_engine in this package.

Each such module is imported. An engine without one has no prediction, which is not an error.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from analysis.theory.setting import Setting
from analysis.theory.theory import Theory

SUFFIX = "_engine"


def discovered(folder: Path) -> dict[str, Theory]:
    """By engine, the theories of the modules in a folder of this package."""
    names = sorted(path.stem.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}.py"))
    return {name: importlib.import_module(f"{__package__}.{name}{SUFFIX}").THEORY for name in names}


ENGINES = discovered(Path(__file__).parent)


def theory_of(setting: Setting) -> Theory | None:
    """The theory of the setting's engine; None if it has none, the setting lacks an option that it needs, or has one of
    ZeRO++'s that it does not know."""
    theory, is_plus_plus = ENGINES.get(setting.engine), bool(setting.quantized or setting.secondary_shard_size)
    if theory is None or (is_plus_plus and not theory.knows_zero_plus_plus):
        return None
    return theory if all(setting.options.get(name) for name in theory.options) else None
