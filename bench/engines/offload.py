"""State in host memory: what an engine describes of it, and how the harness reads it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from bench.engines.base import Engine
from bench.engines.spec import EngineSpec
from results.resolved import EngineDescription


def describe_offload(spec: EngineSpec) -> EngineDescription:
    """The entries of ``describe`` about offload; none without it."""
    return {} if spec.offload == "none" else {"offload": spec.offload, "host_is_device": spec.device == "cpu"}


def host_state(engine: Engine) -> dict[str, list[Tensor]]:
    """The tensors that the engine keeps in host memory, by kind; none of an engine without offload."""
    read: Callable[[], dict[str, list[Tensor]]] | None = getattr(engine, "host_state", None)
    return read() if read else {}
