"""The settings that every engine honors or reports as unsupported: type, default, bounds, help and label.

``results.settings.Config`` adds what is measured, where, and how often.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from results.declare import info, setting
from results.precision import PRECISIONS

QUANTIZED: dict[str, tuple[str, ...]] = {
    "none": (),
    "weights": ("weights",),
    "gradients": ("gradients",),
    "weights_and_gradients": ("weights", "gradients"),
}
"""By value of ``quantize``: what is communicated as 8-bit numbers."""


@dataclass
class Training:
    """One training step: what is sharded, communicated and computed, and in which precision."""

    stage: int = setting(
        0,
        "model state that is sharded over ranks. 0: none (DDP); 1: optimizer state; 2: + gradients; 3: + parameters "
        "(ZeRO)",
        *("0", "1", "2", "3"),
        label="stage {}",
    )
    precision: str = setting(
        "fp32",
        "amp_*: autocast over fp32 weights (amp_fp16 with loss scaling); bf16: weights, gradients and optimizer state "
        "in bf16; bf16_master: bf16 with fp32 master weights and optimizer state",
        *PRECISIONS,
        label="{}",
        label_unset="default",
    )
    bucket_mb: float | None = setting(
        None,
        "maximum size of a gradient bucket in MiB. Stages 0-2 reduce one bucket at a time; stage 3 gathers and reduces "
        "units of this size where the engine can regroup them. null: the engine's default",
        above=0,
        optional=True,
        heading="bucket (MiB)",
        label="bucket {} MiB",
        label_unset="default bucket",
    )
    overlap: bool | None = setting(
        None,
        "overlap communication with the backward pass; at stage 3, also prefetch the next unit. "
        "null: the engine's default",
        optional=True,
        label="overlap {}",
        label_unset="default overlap",
    )
    accumulate: int = setting(
        1,
        "micro-batches per step and rank; only the last one communicates gradients where the engine can accumulate "
        "them locally",
        min=1,
        optional=True,
    )
    compression: str = setting(
        "none",
        "data type or method that gradients are communicated in; powersgd is a low-rank approximation and is not "
        "numerically equivalent",
        *("none", "bf16", "fp16", "powersgd"),
        optional=True,
    )
    quantize: str = setting(
        "none",
        "what is communicated as 8-bit numbers, with one fp32 scale per 256 elements (ZeRO++). weights: all-gathers of "
        "parameters at stage 3; gradients: reduce-scatters at stages 1-3. Not numerically equivalent",
        *QUANTIZED,
        optional=True,
        label="quantize {}",
    )
    shard_size: int | None = setting(
        None,
        "ranks that share one copy of the model state (hybrid sharding); groups of them are replicas. 0: those of a "
        "host, real or emulated, where hosts are several. null: all ranks",
        min=0,
        optional=True,
    )
    secondary_shard_size: int | None = setting(
        None,
        "consecutive ranks that keep a second copy of the parameters at stage 3, for all gathers of a step but the "
        "first (ZeRO++ hpZ): with the ranks of one host, backward gathers within the host. null: no copy",
        min=2,
        optional=True,
    )
    local_steps: int = setting(
        1, "local steps between weight averaging (post-local SGD). 1: no local steps", min=1, optional=True
    )
    clip_norm: float | None = setting(
        None, "maximum norm of the gradient over all ranks and shards. null: no clipping", above=0, optional=True
    )
    compile: bool = setting(
        False, "compile the model with torch.compile, in the first warm-up step of each launch", optional=True
    )
    checkpointing: str = setting(
        "none",
        "activation checkpointing of each sharding unit. full: keep its inputs only and compute its forward again in "
        "backward; selective: also keep the outputs of matrix products, convolutions and attention",
        *("none", "full", "selective"),
        optional=True,
        label="checkpointing {}",
    )
    checkpointing_budget: float | None = setting(
        None,
        "activation memory that compiled code may keep for backward, as a share of what it keeps by itself; the rest "
        "is computed again (torch's activation_memory_budget). Needs compile=true. 0: only the inputs of compiled "
        "parts. null: no limit",
        min=0,
        max=1,
        optional=True,
        label="checkpointing budget {}",
        label_unset="no checkpointing budget",
    )
    offload: str = setting(
        "none",
        "training state in host memory. optimizer: optimizer state, master weights, the gradients for the update, and "
        "the update; params: also parameters. On device=cpu, host and device are the same memory, so no memory is "
        "saved",
        *("none", "optimizer", "params"),
        optional=True,
        label="offload {}",
    )
    optimizer: str = setting(
        "adam",
        "optimizer; sgd has momentum 0.9. muon: torch's Muon for matrices of hidden layers, AdamW for embeddings, the "
        "output layer and weights of other dimensions. adam8bit: torchao's Adam with moments of 8 bits",
        *("sgd", "adam", "adamw", "rmsprop", "muon", "adam8bit"),
    )
    lr: float = setting(1e-3, "learning rate", above=0)
    momentum: float | None = setting(
        None,
        "momentum of sgd, rmsprop and muon. null: 0.9 for sgd, 0 for rmsprop, 0.95 for muon",
        min=0,
        max=0.999999,
        optional=True,
    )
    beta1: float | None = setting(
        None,
        "decay of the first moment of adam, adam8bit and adamw (also of muon's AdamW part). null: 0.9",
        min=0,
        max=0.999999,
        optional=True,
    )
    beta2: float | None = setting(
        None,
        "decay of the second moment of adam, adam8bit and adamw (also of muon's AdamW part). null: 0.999",
        min=0,
        max=0.999999,
        optional=True,
    )
    eps: float | None = setting(
        None,
        "added to the denominator of adam, adam8bit, adamw (also of muon's AdamW part) and rmsprop. null: 1e-8",
        above=0,
        optional=True,
    )
    weight_decay: float | None = setting(
        None,
        "weight decay, decoupled from the gradient for adamw and muon only. null: 0.01 for adamw (also of muon's AdamW "
        "part), 0.1 for muon's matrices, else 0",
        min=0,
        optional=True,
    )
    lr_schedule: str = setting(
        "constant",
        "learning rate after lr_warmup steps. linear, cosine: it falls to 0 at step lr_steps",
        *("constant", "linear", "cosine"),
        optional=True,
    )
    lr_warmup: int = setting(0, "steps over which the learning rate rises from 0 to lr", min=0, optional=True)
    lr_steps: int | None = setting(
        None,
        "step at which lr_schedule=linear and cosine reach 0. null: only valid with constant",
        min=1,
        optional=True,
    )


def choices(name: str) -> tuple[str, ...]:
    """The valid values of a setting of ``Training`` that has a list of them."""
    return next(info(spec).choices for spec in dataclasses.fields(Training) if spec.name == name)


NEUTRAL: dict[str, Any] = {spec.name: spec.default for spec in dataclasses.fields(Training) if info(spec).optional}
"""The settings that an engine may lack, each with the value that asks for nothing."""
