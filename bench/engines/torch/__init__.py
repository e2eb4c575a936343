"""PyTorch's own data parallelism: what it honours and what it refuses.

stage 0  DistributedDataParallel
stage 1  DistributedDataParallel and ZeroRedundancyOptimizer
stage 2  fully_shard (FSDP2) with reshard_after_forward=False
stage 3  fully_shard with reshard_after_forward=True
"""

from __future__ import annotations

from bench.engines.spec import Capabilities, EngineSpec, EngineUnsupported, option

CAPABILITIES = Capabilities(
    stages={
        0: "DistributedDataParallel",
        1: "DistributedDataParallel and ZeroRedundancyOptimizer",
        2: "fully_shard, reshard_after_forward=False",
        3: "fully_shard, reshard_after_forward=True",
    },
    knobs=("bucket_mb", "overlap", "clip_norm", "accumulate"),
)
PRELOAD = ("torch._dynamo", "torch.nn.parallel", "torch.distributed.optim", "torch.distributed.fsdp", "torch.profiler")


def refuse(spec: EngineSpec) -> None:
    """Raises EngineUnsupported for what torch's wrappers have no setting for."""
    wrapper = "DistributedDataParallel" if spec.stage < 2 else "fully_shard"
    view = option(spec, "gradient_as_bucket_view", True, False)
    if spec.stage >= 2 and not view:
        raise EngineUnsupported(
            f"engine=torch at stage={spec.stage} has no gradient_as_bucket_view=false: {wrapper} has no buckets"
        )
    if spec.stage >= 2 and spec.bucket_mb is not None:
        raise EngineUnsupported(
            f"engine=torch at stage={spec.stage} has no bucket_mb: fully_shard communicates per unit, not per bucket"
        )
    if spec.overlap is False:
        raise EngineUnsupported(
            f"engine=torch at stage={spec.stage} cannot set overlap=false: {wrapper} always communicates in backward"
        )
    if spec.stage < 2 and spec.precision == "bf16_master":
        raise EngineUnsupported(
            f"engine=torch at stage={spec.stage} has no precision=bf16_master: {wrapper} keeps no master weights"
        )
