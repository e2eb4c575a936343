"""The settings that an engine must honour or refuse, and how it refuses. Needs no torch: plans are made with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class EngineUnsupported(Exception):
    """The engine cannot honour a setting; the message names the setting and says why."""


class EngineUnavailable(Exception):
    """The engine's library is not installed; the message says how to install it."""


@dataclass(frozen=True)
class EngineSpec:
    """The settings that an engine must honour or refuse. None asks for the engine's own default."""

    stage: int
    world_size: int
    device: str
    """``cpu`` or ``cuda``."""
    backend: str
    """``gloo`` or ``nccl``."""
    precision: str
    """``fp32``, ``amp_bf16``, ``amp_fp16``, ``bf16`` or ``bf16_master``."""
    bucket_mb: float | None
    """Cap of a gradient bucket in MiB."""
    overlap: bool | None
    """Whether communication may start before backward has ended."""
    optimizer: str
    """``sgd`` (momentum 0.9), ``adam``, ``adamw`` or ``rmsprop``, with torch's other defaults."""
    lr: float
    clip_norm: float | None
    """Bound of the global gradient norm; None does not clip."""
    accumulate: int
    """Micro-batches per step; gradients are averaged over them."""
    options: dict[str, Any] = field(default_factory=dict)
    """The engine's own settings, from conf/engine/NAME.yaml."""
