"""Hugging Face Accelerate, used as its documentation does: ``Accelerator().prepare(model, optimizer)``.

stage 0  DistributedDataParallel, which Accelerate wraps and configures

It wraps what ``engine=torch`` wraps at stage 0, so the two show what Accelerate itself costs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from bench.engines.spec import (
    HYPERPARAMETERS,
    SCHEDULE,
    Capabilities,
    EngineSpec,
    UnsupportedCase,
    option,
    reject_debug_detail,
    reject_missing,
    reject_unsupported,
)
from bench.engines.unsupported_steps import reject_skipped
from results.model import StepProperties

CAPABILITIES = Capabilities(
    stages={0: "DistributedDataParallel"},
    settings=(
        "bucket_mb",
        "overlap",
        "clip_norm",
        "accumulate",
        "compression",
        "checkpointing",
        *HYPERPARAMETERS,
        *SCHEDULE,
    ),
    precisions=("fp32", "amp_bf16", "bf16"),
    backends=("gloo", "nccl", "fake"),
    why_not={
        "quantize": "its wrappers exchange floating-point numbers; valid: quantize=none, engine=native",
        "stage": "Accelerate ignores its FSDP plugin on a CPU (1.15), and on a GPU it was not tested; valid: stage=0, "
        "engine=torch or deepspeed, which it wraps",
        "precision": "Accelerate ignores mixed_precision=fp16 on a CPU (1.15), and DistributedDataParallel keeps no "
        "master weights; valid: fp32, amp_bf16, bf16",
        "compile": "its dynamo_backend was not tested; valid: engine=torch",
        "local_steps": "its LocalSGD was not tested; valid: engine=torch",
        "join": "Accelerate joins uneven ranks on GPUs only; valid: engine=torch",
        "shard_size": "DistributedDataParallel shards nothing among some ranks",
        "offload": "DistributedDataParallel keeps all state on the device",
    },
)
INSTALLED = importlib.util.find_spec("accelerate") is not None
PRELOAD = (
    "torch._dynamo",
    "torch.nn.parallel",
    "torch.distributed.algorithms.ddp_comm_hooks",
    "torch.profiler",
    *(("accelerate",) if INSTALLED else ()),
)


def check_settings(spec: EngineSpec) -> None:
    """Raises EngineUnavailable without the library, EngineUnsupported for what it cannot do."""
    option(spec, "gradient_as_bucket_view", True, False)
    reject_debug_detail("engine=accelerate", "DistributedDataParallel crashes in torch 2.15")
    reject_unsupported("engine=accelerate", _unsupported(spec))
    reject_missing("accelerate", installed=INSTALLED)


def check_model(spec: EngineSpec, step: StepProperties) -> None:
    """Raises EngineUnsupported for a model that skips parameters."""
    valid = "engine=torch with engine.find_unused_parameters=true, engine=native"
    reject_skipped(step, "accelerate", spec, "and DistributedDataParallel waits for all", valid)


def _unsupported(spec: EngineSpec) -> Iterator[UnsupportedCase]:
    yield (
        spec.bucket_mb == 25,
        "has no bucket_mb=25",
        "Accelerate drops a value equal to its default, and torch's first bucket is then 1 MiB; valid: null, 24.9",
    )
    yield spec.overlap is False, "cannot set overlap=false", "DistributedDataParallel always communicates in backward"
    yield (
        spec.compression == "powersgd",
        "has no compression=powersgd",
        "it was tested with bf16 and fp16 only; valid: engine=torch",
    )
    yield (
        spec.compression != "none" and spec.precision == "bf16",
        f"has no compression={spec.compression} with precision=bf16",
        "gradients have 2 bytes already",
    )
