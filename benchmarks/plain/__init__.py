"""Plain torch training in one process: the compute that an engine's overhead is counted from."""

from __future__ import annotations

from bench.engines.spec import Capabilities, EngineSpec

CAPABILITIES = Capabilities(stages={0: "one process"})
PRELOAD = ()


def check_settings(spec: EngineSpec) -> None:
    """Rejects nothing; it is only ever run on one rank."""
