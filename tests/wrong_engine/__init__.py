"""An engine that computes something else, on purpose: the negative control of parity."""

from __future__ import annotations

from bench.engines.spec import Capabilities, EngineSpec

CAPABILITIES = Capabilities(stages={0: "plain replicas"}, settings=("accumulate",))
PRELOAD = ()


def check_settings(spec: EngineSpec) -> None:
    """Rejects nothing."""
