"""PyTorch's FullyShardedDataParallel (FSDP1), the predecessor of fully_shard: what it supports and what it does not.

stage 2  ShardingStrategy.SHARD_GRAD_OP, or _HYBRID_SHARD_ZERO2 with shard_size
stage 3  ShardingStrategy.FULL_SHARD, or HYBRID_SHARD with shard_size

It flattens all parameters of a sharding unit into one and cuts that into equal parts; fully_shard cuts each parameter.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from bench.engines.spec import (
    HYPERPARAMETERS,
    SCHEDULE,
    Capabilities,
    EngineSpec,
    EngineUnsupported,
    UnsupportedCase,
    option,
    reject_unsupported,
    shard_sizes,
)
from bench.engines.unsupported_steps import Uses, reject_differentiation, reject_skipped, reject_threads, reject_uses
from results.model import StepProperties

WRAPPER = "FullyShardedDataParallel"
CAPABILITIES = Capabilities(
    stages={2: f"{WRAPPER}, SHARD_GRAD_OP", 3: f"{WRAPPER}, FULL_SHARD"},
    settings=(
        "overlap",
        "clip_norm",
        "accumulate",
        "shard_size",
        "checkpointing",
        *HYPERPARAMETERS,
        *SCHEDULE,
    ),
    optimizers=("sgd", "adam", "adamw", "rmsprop"),
    backends=("gloo", "nccl", "fake"),
    why_not={
        "quantize": "its wrappers exchange floating-point numbers; valid: quantize=none, engine=native",
        "stage": f"{WRAPPER} shards gradients (2) or gradients and parameters (3), and its NO_SHARD is deprecated in "
        "favor of DistributedDataParallel; valid: stage=2 or 3, engine=torch at stage=0 or 1",
        "optimizer": "Muon needs whole matrices, and a rank has a part of a flattened unit; valid: engine=torch at "
        "stage=0 or 1, engine=native",
        "bucket_mb": f"{WRAPPER} communicates per unit, not per bucket",
        "compile": f"compiled units were not tested with {WRAPPER}; valid: engine=torch at stage=2 or 3",
        "offload": f"{WRAPPER}'s CPUOffload needs an accelerator; valid: engine=torch at stage=3",
        "join": f"a module under {WRAPPER} cannot be joined (torch's Join)",
    },
)
PRELOAD = ("torch.distributed.fsdp", "torch.distributed.fsdp.sharded_grad_scaler", "torch._dynamo", "torch.profiler")
PREFETCH = ("pre", "post", "none")
"""Values of ``engine.backward_prefetch``."""


def check_settings(spec: EngineSpec) -> None:
    """Raises EngineUnsupported for what the wrapper cannot do, and where torch does not have it any more."""
    if not is_in_torch():
        raise EngineUnsupported(
            f"engine=fsdp1 has no stage={spec.stage}: the installed torch has no {WRAPPER}; "
            "valid: engine=torch at stage=2 or 3"
        )
    option(spec, "backward_prefetch", *PREFETCH)
    option(spec, "forward_prefetch", True, False)
    option(spec, "limit_all_gathers", True, False)
    reject_unsupported(f"engine=fsdp1 at stage={spec.stage}", _unsupported(spec))


def is_in_torch() -> bool:
    """Whether the installed torch has the wrapper. Does not import torch."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return False
    return (Path(torch.origin).parent / "distributed/fsdp/fully_sharded_data_parallel.py").exists()


def check_model(spec: EngineSpec, step: StepProperties) -> None:
    """Raises EngineUnsupported for a model that skips parameters, or uses them where they are sharded."""
    others = "engine=torch at stage=0 or 1, engine=native"
    reject_differentiation(step, "fsdp1", spec, f"and {WRAPPER} has no gradients of gradients", others)
    uses: Uses = "used_outside" if spec.stage == 3 else "used_early"
    reject_uses(step, f"fsdp1 at stage={spec.stage}", uses, f"when {WRAPPER} has it in parts", others)
    reject_threads(step, "fsdp1", spec, "engine=torch at stage=0 or 1")
    zeros = "and its part of the flattened gradient is zero, by which the optimizer updates it"
    reject_skipped(step, "fsdp1", spec, zeros, "engine=torch at stage=2 or 3, engine=native")


def _unsupported(spec: EngineSpec) -> Iterator[UnsupportedCase]:
    size, streams = spec.shard_size, spec.device == "cuda"
    yield spec.overlap is False and streams, "cannot set overlap=false", f"{WRAPPER} always communicates in backward"
    yield (
        spec.overlap is True and not streams,
        f"cannot set overlap=true on device={spec.device}",
        f"{WRAPPER} overlaps by CUDA streams, and waits for each collective where there are none",
    )
    yield (
        spec.stage == 2 and spec.options["backward_prefetch"] != "pre",
        f"has no engine.backward_prefetch={spec.options['backward_prefetch']}",
        "SHARD_GRAD_OP keeps units gathered, so backward gathers none; valid: pre, stage=3",
    )
    yield (
        spec.options["limit_all_gathers"] is False and not streams,
        f"has no engine.limit_all_gathers=false on device={spec.device}",
        f"{WRAPPER} waits for each all-gather where there are no CUDA streams; valid: true",
    )
    yield (
        size is not None and (size < 2 or spec.world_size % size > 0),
        f"has no shard_size={size}",
        f"valid with gpus={spec.world_size}: {shard_sizes(spec.world_size)}",
    )
