"""PyTorch's own data parallelism: what it supports and what it does not.

stage 0  DistributedDataParallel
stage 1  DistributedDataParallel and ZeroRedundancyOptimizer
stage 2  fully_shard (FSDP2) with reshard_after_forward=False
stage 3  fully_shard with reshard_after_forward=True

ddp.py wraps for stages 0 and 1, fsdp.py shards for 2 and 3, adapter.py takes the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.engines import compiler
from bench.engines.spec import (
    BLOCKS_OF_SHARDS,
    HYPERPARAMETERS,
    SCHEDULE,
    Capabilities,
    EngineSpec,
    EngineUnsupported,
    Traits,
    UnsupportedCase,
    count_option,
    option,
    reject_debug_detail,
    reject_unsupported,
    shard_sizes,
)
from bench.engines.unsupported_steps import (
    Uses,
    reject_differentiation,
    reject_skipped,
    reject_threads,
    reject_uneven,
    reject_uses,
)
from results.model import StepProperties
from results.precision import PRECISIONS
from results.training_settings import choices

CAPABILITIES = Capabilities(
    stages={
        0: "DistributedDataParallel",
        1: "DistributedDataParallel and ZeroRedundancyOptimizer",
        2: "fully_shard, reshard_after_forward=False",
        3: "fully_shard, reshard_after_forward=True",
    },
    settings=(
        "bucket_mb",
        "overlap",
        "clip_norm",
        "accumulate",
        "compression",
        "shard_size",
        "local_steps",
        "compile",
        "checkpointing",
        "checkpointing_budget",
        "offload",
        "join",
        *HYPERPARAMETERS,
        *SCHEDULE,
    ),
    optimizers=choices("optimizer"),
    backends=("gloo", "nccl", "fake"),
    why_not={
        "quantize": "its wrappers exchange floating-point numbers; valid: quantize=none, engine=native",
        "secondary_shard_size": "fully_shard keeps no second copy; valid: null, engine=native",
    },
)
PRELOAD = (
    "torch._dynamo",
    "torch.nn.parallel",
    "torch.distributed.algorithms.ddp_comm_hooks",
    "torch.distributed.algorithms.model_averaging.averagers",
    "torch.distributed.optim",
    "torch.distributed.fsdp",
    "torch.profiler",
)


def check_settings(spec: EngineSpec) -> None:
    """Raises EngineUnsupported for what torch's wrappers cannot do, EngineUnavailable if there is no compiler."""
    if spec.stage < 2:
        reject_debug_detail(f"engine=torch at stage={spec.stage}", "DistributedDataParallel crashes in torch 2.15")
    option(spec, "gradient_as_bucket_view", True, False)
    option(spec, "static_graph", True, False)
    option(spec, "find_unused_parameters", True, False)
    rank = count_option(spec, "powersgd_rank")
    if rank != 1 and spec.compression != "powersgd":
        raise EngineUnsupported(f"engine=torch has no engine.powersgd_rank={rank} without compression=powersgd")
    reject_unsupported(f"engine=torch at stage={spec.stage}", (_replicated if spec.stage < 2 else _sharded)(spec))
    compiler.check_compile("torch", spec)


def check_model(spec: EngineSpec, step: StepProperties) -> None:
    """Raises EngineUnsupported for a model that skips parameters, where DDP waits for all or ranks would not match, and
    for what a loss does with weights that fully_shard has freed."""
    looks = spec.options["find_unused_parameters"] or spec.options["static_graph"]
    if spec.stage < 2 and not looks:
        valid = "engine.find_unused_parameters=true, engine=native"
        reject_skipped(step, "torch", spec, "and DistributedDataParallel waits for all", valid)
    if spec.stage >= 2:
        check_fully_shard("torch", spec, step)


def check_fully_shard(engine: str, spec: EngineSpec, step: StepProperties) -> None:
    """Raises EngineUnsupported for what a loss does with weights that ``fully_shard`` has freed, and for ranks whose
    collectives would not match."""
    replicated = "engine=torch at stage=0 or 1, engine=native"
    reject_differentiation(step, engine, spec, "and fully_shard frees weights that its backward needs", replicated)
    uses: Uses = "used_outside" if spec.stage == 3 else "used_early"
    reject_uses(step, f"{engine} at stage={spec.stage}", uses, "when fully_shard has it in parts", replicated)
    reject_threads(step, engine, spec, "engine=torch at stage=0 or 1")
    valid = "engine=torch at stage=0 or 1 with engine.find_unused_parameters=true, engine=native at stage=0, 1, 2"
    reject_uneven(step, engine, spec, "so the collectives of fully_shard would not match", valid)


def traits(spec: EngineSpec) -> Traits:
    """Why the weights differ from a single process's by design; empty if they do not."""
    if spec.compression == "powersgd":
        return Traits(
            outside_parity="compression=powersgd reduces a low-rank approximation of the gradients",
            uncounted="PowerSGD's hook calls most of its collectives on a thread of the backend",
        )
    if spec.local_steps > 1:
        why = f"local_steps={spec.local_steps} lets each rank step on its own gradients between averages of the weights"
        return Traits(outside_parity=why)
    traits = compiler.TRAITS if spec.compile else Traits()
    if spec.optimizer == "adam8bit" and spec.stage >= 2:
        return replace(traits, outside_parity=BLOCKS_OF_SHARDS)
    return traits


def _replicated(spec: EngineSpec) -> Iterator[UnsupportedCase]:
    """Stages 0 and 1."""
    ddp = "DistributedDataParallel"
    low = spec.compression in ("bf16", "fp16")
    power = spec.compression == "powersgd"
    static = bool(spec.options["static_graph"])
    yield spec.overlap is False, "cannot set overlap=false", f"{ddp} always communicates in backward"
    yield spec.precision == "bf16_master", "has no precision=bf16_master", f"{ddp} keeps no master weights"
    yield spec.shard_size is not None, f"has no shard_size={spec.shard_size}", f"{ddp} shards nothing among some ranks"
    yield (
        low and spec.precision == "bf16",
        f"has no compression={spec.compression} with precision=bf16",
        "gradients have 2 bytes already",
    )
    yield (
        power and spec.bucket_mb is not None,
        "has no bucket_mb with compression=powersgd",
        "over gloo its hook mismatches the collectives of several buckets, so all gradients go in one",
    )
    yield (
        power and PRECISIONS[spec.precision].loss_scaling,
        "has no compression=powersgd with precision=amp_fp16",
        "its error feedback would be added to gradients of another loss scale",
    )
    yield (
        static and spec.accumulate > 1,
        "has no engine.static_graph=true with accumulate",
        f"{ddp} fixes the graph in the first backward, which no_sync hides from it",
    )
    yield (
        static and spec.compile,
        "has no engine.static_graph=true with compile=true",
        "torch.compile's DDPOptimizer cannot cut a static graph at the buckets",
    )
    yield (
        spec.compile and spec.bucket_mb is not None and spec.bucket_mb < 1,
        f"has no bucket_mb={spec.bucket_mb:g} with compile=true" if spec.bucket_mb else "",
        "torch.compile's DDPOptimizer cuts a first bucket of 1 MiB and rejects smaller ones after it",
    )
    yield (
        spec.offload != "none",
        f"has no offload={spec.offload}",
        f"{ddp} keeps all state on the device; valid: offload=none, offload=params at stage=3",
    )
    yield from _local_steps(spec)
    yield from _joined(spec)


def _local_steps(spec: EngineSpec) -> Iterator[UnsupportedCase]:
    """Steps without communication between averages of the weights."""
    local = spec.local_steps > 1
    yield (
        local and spec.stage == 1,
        f"has no local_steps={spec.local_steps}",
        "ZeroRedundancyOptimizer updates each weight on one rank only",
    )
    yield (
        local and spec.compression != "none",
        f"has no compression={spec.compression} with local_steps={spec.local_steps}",
        "no gradient is sent",
    )
    yield (
        local and spec.clip_norm is not None,
        f"has no clip_norm with local_steps={spec.local_steps}",
        "there is no global gradient whose norm could be bounded",
    )
    yield (
        local and spec.join,
        f"has no join=true (data_skew=samples) with local_steps={spec.local_steps}",
        "averaging the weights is not part of Join, so a rank that has run out would be missed",
    )


def _joined(spec: EngineSpec) -> Iterator[UnsupportedCase]:
    """Ranks with unequal numbers of batches."""
    yield (
        spec.join and spec.stage == 1 and spec.accumulate > 1,
        "has no accumulate with join=true (data_skew=samples)",
        "a rank that has run out takes a step for each forward of the others",
    )
    yield (
        spec.join and spec.stage == 1 and PRECISIONS[spec.precision].loss_scaling,
        "has no precision=amp_fp16 with join=true (data_skew=samples)",
        "a rank without data left steps on gradients that no rank unscales",
    )
    yield (
        spec.join and spec.stage == 1 and spec.clip_norm is not None,
        "has no clip_norm with join=true (data_skew=samples)",
        "a rank without data left steps on gradients that no rank clips",
    )


def _sharded(spec: EngineSpec) -> Iterator[UnsupportedCase]:
    """Stages 2 and 3."""
    view = bool(spec.options["gradient_as_bucket_view"])
    size = spec.shard_size
    yield not view, "has no gradient_as_bucket_view=false", "fully_shard has no buckets"
    for name in ("static_graph", "find_unused_parameters"):
        yield bool(spec.options[name]), f"has no engine.{name}=true", "it is DistributedDataParallel's"
    yield spec.bucket_mb is not None, "has no bucket_mb", "fully_shard communicates per unit, not per bucket"
    yield (
        spec.optimizer == "muon",
        "has no optimizer=muon",
        "DTensor multiplies parts of matrices and adds the products up in bf16, so updates miss parity (torch 2.15); "
        "valid: stage=0 or 1",
    )
    streams = spec.device == "cuda"
    yield spec.overlap is False and streams, "cannot set overlap=false", "fully_shard always communicates in backward"
    yield (
        spec.overlap is True and not streams,
        f"cannot set overlap=true on device={spec.device}",
        "fully_shard overlaps by CUDA streams, and waits for each collective where there are none",
    )
    yield (
        spec.compression != "none",
        f"has no compression={spec.compression}",
        "fully_shard takes no communication hook",
    )
    yield spec.local_steps > 1, f"has no local_steps={spec.local_steps}", "no rank has the weights to step on its own"
    yield (
        spec.join,
        "has no join=true (data_skew=samples)",
        "a module under fully_shard cannot be joined (torch's Join)",
    )
    yield (
        size is not None and (size < 2 or spec.world_size % size > 0),
        f"has no shard_size={size}",
        f"valid with gpus={spec.world_size}: {shard_sizes(spec.world_size)}",
    )
    yield from _offloaded(spec)


def _offloaded(spec: EngineSpec) -> Iterator[UnsupportedCase]:
    """State of ``fully_shard`` in host memory, by its CPUOffloadPolicy."""
    offloads, on_gpu = spec.offload == "params", spec.device != "cpu"
    yield (
        spec.offload == "optimizer",
        "has no offload=optimizer",
        "CPUOffloadPolicy moves parameters, gradients and optimizer state together; valid at stage=3: none, params",
    )
    yield (
        offloads and spec.stage == 2,
        "has no offload=params",
        "parameters stay on the device until backward; valid: offload=none, stage=3",
    )
    yield (
        offloads and on_gpu and spec.clip_norm is not None,
        f"has no clip_norm with offload=params on device={spec.device}",
        "the norm would be reduced from host memory, for which the ranks have no backend; "
        "valid: clip_norm=null, offload=none",
    )
    yield (
        offloads and on_gpu and PRECISIONS[spec.precision].loss_scaling,
        f"has no precision={spec.precision} with offload=params on device={spec.device}",
        "the loss scale is on the device and the gradients are in host memory; "
        "valid: precision=fp32, amp_bf16, bf16, bf16_master, offload=none",
    )
