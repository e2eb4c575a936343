"""The native engine with a fault on purpose, for the benchmark of the time gate (``benchmarks.detection``)."""

from __future__ import annotations

from bench.engines import native
from bench.engines.spec import EngineSpec

CAPABILITIES = native.CAPABILITIES
PRELOAD = (*native.PRELOAD, "bench.engines.native.adapter")


def check_settings(spec: EngineSpec) -> None:
    """What native does not support."""
    native.check_settings(spec)
