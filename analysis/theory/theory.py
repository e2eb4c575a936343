"""Everything that analysis knows of one engine, as one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from analysis.theory.setting import Setting


@dataclass(frozen=True)
class Copied:
    """Bytes that a rank copies per step, each way."""

    to_host: int
    to_device: int


def nothing(setting: Setting) -> dict[str, int] | None:
    """Of an engine without offload."""
    return {}


def uncopied(setting: Setting) -> None:
    """Of an engine without offload."""


@dataclass(frozen=True, kw_only=True)
class Theory:
    """The formulas of one engine, as functions of a Setting, and what is exact about it."""

    state: Callable[[Setting], dict[str, int] | None]
    """Bytes by kind in device memory on the rank that holds most, between backward and update; None where it has no
    formula."""
    transient: Callable[[Setting], int]
    """Most bytes that the engine itself needs in addition to its state and the activations, at any moment of a step."""
    sent: Callable[[Setting], float]
    """Bytes that a rank sends per step if every collective is bandwidth-optimal (mean over ranks)."""
    host: Callable[[Setting], dict[str, int] | None] = nothing
    """Bytes of model state by kind in host memory of the rank that holds most; empty without offload, None where it has
    no formula."""
    copied: Callable[[Setting], Copied | None] = uncopied
    """Bytes that a rank copies between device and host per step; None without offload, or without a formula."""
    host_gradients_kept: bool = True
    """Whether gradients in host memory outlive the update."""
    gradients_kept: tuple[int, ...] = ()
    """Stages at which gradients have memory of their own that outlives the update."""
    exact_peak: tuple[int, ...] = ()
    """Stages whose peak was the same in eleven runs of every configuration (docs/design/evidence.md). At others,
    threads of gloo release a collective's memory sooner or later, so that even the smallest of the steps differs."""
    handover: tuple[int, ...] = ()
    """Stages at which ``transient`` includes the gradient that autograd hands over."""
    knows_zero_plus_plus: bool = False
    """Whether the formulas know ``quantize`` and ``secondary_shard_size``; else there is no prediction with these."""
    options: tuple[str, ...] = ()
    """The engine's own settings (engine.*) that the formulas read; without them there is no prediction."""
