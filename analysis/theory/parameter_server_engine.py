"""Engine ``parameter_server``: what a worker keeps and sends, to the byte, padding included.

Trainable parameters lie in one flat fp32 tensor, gradients in another, each cut into a slice for every server. The
optimizer is the servers'. Each parameter starts at a multiple of 64 bytes and slices are equal, as native's buckets.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from analysis.theory import native_engine
from analysis.theory.setting import Setting, elements
from analysis.theory.theory import Theory


def state(setting: Setting) -> dict[str, int] | None:
    """Bytes of model state by kind; the same on every worker."""
    flat = 4 * flat_elements(setting)
    frozen = 4 * (elements(setting.parameters) - elements(setting.trainable))
    return {"params": flat + frozen, "master": 0, "grads": flat, "optimizer": 0, "buffers": setting.buffer_bytes}


def transient(setting: Setting) -> int:
    """Most bytes in addition to state and activations: autocast's 2-byte copies of the weights."""
    return 2 * elements(setting.parameters) if setting.precision.startswith("amp_") else 0


def sent(setting: Setting) -> float:
    """Bytes that a worker sends per step: its gradient, once, at any world size. It receives as much."""
    return 4 * flat_elements(setting)


def flat_elements(setting: Setting) -> int:
    """Elements of the flat tensor."""
    sliced = replace(setting, world_size=int(setting.options["servers"]))
    return sum(bucket.size for bucket in native_engine.lay_out(sliced, setting.trainable, inf, 0, setting.optimizer))


THEORY = Theory(state=state, transient=transient, sent=sent, gradients_kept=(0,), exact_peak=(0,), options=("servers",))
