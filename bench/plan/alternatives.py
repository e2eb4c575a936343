"""Another engine or stage that supports settings which an engine does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from bench import engines
from bench.engines.spec import EngineSpec, EngineUnavailable, EngineUnsupported
from bench.groups import group_files, options

STAGES = (0, 1, 2, 3)
MAX_ENGINES = 2
"""That one line names."""
FIRST = ("native", "torch", "deepspeed")
"""Engines that come before all others."""


def alternatives(name: str, spec: EngineSpec) -> str:
    """Such as ``supported by engine=native at stage=0, 1``; empty if no engine of conf/engine/ supports the settings.

    The same engine comes first. An engine whose library is missing is left out.
    """
    offers = []
    for engine in sorted(options("engine"), key=lambda other: (other != name, rank_of(other), other)):
        if stages := list(_stages(engine, name, spec)):
            offers.append(f"engine={engine} at stage={', '.join(map(str, stages))}")
    return f"supported by {' or '.join(offers[:MAX_ENGINES])}" if offers else ""


def rank_of(engine: str) -> int:
    return FIRST.index(engine) if engine in FIRST else len(FIRST)


def _stages(engine: str, options_owner: str, spec: EngineSpec) -> Iterator[int]:
    """The stages at which ``engine`` supports the settings; with its own options unless they were given to it."""
    document = group_files("engine")[engine]
    own = {key: value for key, value in document.items() if key not in ("name", "package")}
    own = spec.options if engine == options_owner else own
    for stage in STAGES:
        try:
            engines.check_settings(engine, document["package"], dataclasses.replace(spec, stage=stage, options=own))
        except (EngineUnsupported, EngineUnavailable):
            continue
        yield stage
