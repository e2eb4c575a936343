"""Lightning Fabric, used as its documentation does: ``setup_module``, ``setup_optimizers``, ``backward``.

stage 0  DDPStrategy: DistributedDataParallel
stage 2  ModelParallelStrategy with ``fully_shard``, reshard_after_forward=False
stage 3  ModelParallelStrategy with ``fully_shard``, reshard_after_forward=True

It wraps what ``engine=torch`` uses, so the two show what Fabric itself costs. Fabric's FSDPStrategy needs a GPU.
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
from bench.engines.torch import check_fully_shard
from bench.engines.unsupported_steps import reject_skipped
from results.model import StepProperties

CAPABILITIES = Capabilities(
    stages={
        0: "DDPStrategy",
        2: "ModelParallelStrategy with fully_shard, reshard_after_forward=False",
        3: "ModelParallelStrategy with fully_shard, reshard_after_forward=True",
    },
    settings=(
        "bucket_mb",
        "overlap",
        "clip_norm",
        "accumulate",
        "checkpointing",
        *HYPERPARAMETERS,
        *SCHEDULE,
    ),
    precisions=("fp32", "amp_bf16", "bf16", "bf16_master"),
    optimizers=("sgd", "adam", "adamw", "rmsprop"),
    backends=("gloo", "nccl", "fake"),
    why_not={
        "quantize": "its wrappers exchange floating-point numbers; valid: quantize=none, engine=native",
        "stage": "Fabric has no strategy that shards optimizer state alone; valid: stage=0, 2, 3",
        "precision": "on a CPU Fabric replaces 16-mixed by bf16-mixed (2.6); valid: fp32, amp_bf16, bf16, bf16_master",
        "optimizer": "it was not tested with Muon; valid: engine=torch at stage=0 or 1",
        "compression": "communication hooks were not tested with Fabric; valid: engine=torch",
        "shard_size": "ModelParallelStrategy has a mesh of data and tensor parallelism; valid: engine=torch",
        "local_steps": "Fabric has no averaging of weights; valid: engine=torch",
        "compile": "compiled modules were not tested with Fabric; valid: engine=torch",
        "offload": "it was not tested with Fabric; valid: engine=torch at stage=3",
        "join": "Fabric does not join uneven ranks; valid: engine=torch",
    },
)
INSTALLED = importlib.util.find_spec("lightning_fabric") is not None
PRELOAD = (
    "torch._dynamo",
    "torch.nn.parallel",
    "torch.distributed.fsdp",
    "torch.profiler",
    *(("lightning_fabric",) if INSTALLED else ()),
)


def check_settings(spec: EngineSpec) -> None:
    """Raises EngineUnavailable without the library, EngineUnsupported for what its strategies cannot do."""
    option(spec, "gradient_as_bucket_view", True, False)
    if spec.stage == 0:
        reject_debug_detail("engine=fabric at stage=0", "DistributedDataParallel crashes in torch 2.15")
    reject_unsupported(f"engine=fabric at stage={spec.stage}", _unsupported(spec))
    reject_missing("fabric", installed=INSTALLED)


def check_model(spec: EngineSpec, step: StepProperties) -> None:
    """Raises EngineUnsupported for what the wrapped engine rejects."""
    if spec.stage:
        check_fully_shard("fabric", spec, step)
        return
    valid = "engine=torch with engine.find_unused_parameters=true, engine=native"
    reject_skipped(step, "fabric", spec, "and DistributedDataParallel waits for all", valid)


def _unsupported(spec: EngineSpec) -> Iterator[UnsupportedCase]:
    sharded, streams = spec.stage >= 2, spec.device == "cuda"
    yield (
        streams and spec.backend == "gloo",
        "has no backend=gloo on device=cuda",
        "Fabric needs a GPU for each rank of a host; valid: backend=nccl, engine=torch",
    )
    yield (
        sharded and spec.bucket_mb is not None,
        "has no bucket_mb",
        "fully_shard communicates per unit, not per bucket",
    )
    yield (
        sharded and not spec.options["gradient_as_bucket_view"],
        "has no gradient_as_bucket_view=false",
        "fully_shard has no buckets",
    )
    yield (
        not sharded and spec.precision == "bf16_master",
        "has no precision=bf16_master",
        "DistributedDataParallel keeps no master weights",
    )
    yield (
        spec.overlap is False and (streams or not sharded),
        "cannot set overlap=false",
        "DistributedDataParallel and fully_shard always communicate in backward",
    )
    yield (
        spec.overlap is True and sharded and not streams,
        f"cannot set overlap=true on device={spec.device}",
        "fully_shard overlaps by CUDA streams, and waits for each collective where there are none",
    )
