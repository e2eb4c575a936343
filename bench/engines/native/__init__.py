"""The native engine: DDP and ZeRO 1-3 in one design, in which every setting means the same at every stage.

Vocabulary (FSDP2's, ``torch.distributed.fsdp``, where it has a word)
---------------------------------------------------------------------
bucket           consecutive parameters in one flat tensor, padded to N equal shards; rank r owns the r-th
unsharded param  a bucket's flat tensor; the module's parameters are views of it
sharded param    what this rank's optimizer updates: its shard of a bucket (at stage 0: all of it)
unshard          allocate the unsharded param and all-gather it: ``start_unshard``, then ``wait_for_unshard``
neighbours       consecutive ranks that keep a second copy of the parameters, to gather from (secondary_shard_size)
reshard          free the memory of the unsharded param
param group      the buckets of one unit, or of several small ones: they are unsharded and resharded together
root             the group of parameters that belong to no unit, or to several
sharding policy  what a stage shards
in flight        a collective that was started and not yet waited for: an object, and ``wait`` ends its life
packed           elements as 8-bit codes and their scales, as they are sent (quantize)
place            the memory in which a shard is updated: the device's, or with offload the host's
P2P thread       posts gloo's sends and receives while the rank computes

Stages
------
What a stage shards is their only difference:

    stage   parameters      gradients       optimizer state   collectives per bucket and step
    0       whole           whole           whole             all-reduce gradients
    1       whole           whole, reduced  shard             reduce-scatter gradients, all-gather parameters
    2       whole           shard           shard             the same; the bucket is freed once reduced
    3       shard           shard           shard             all-gather parameters (forward and backward),
                                                              reduce-scatter gradients

With optimizer=muon, matrices of hidden layers have buckets of their own. From stage 1 on, the update all-gathers their
averaged gradients in bf16, one bucket at a time.

quantize sends packed elements in the reduce-scatters of stages 1 to 3, and in the all-gathers of stage 3. A rank
computes with dequantized weights; its shard, which the update changes, is exact.

Files, in the order in which to read them
-----------------------------------------
    step.py              the whole step: forward, backward with reduction, optimizer, all-gather
    policy.py            what each stage shards
    layout.py            which element is where in a bucket, and which rank owns it
    bucket.py            a bucket's parameters: flat, as views, unsharded and resharded
    param_group.py       parameter groups, and the assignment of parameters to groups and buckets
    unshard_schedule.py  when groups are unsharded and resharded
    param_access.py      sharded parameters that are read outside their unit
    autograd_hooks.py    hooks on tensors that backward reaches
    gradients.py         gradients collected into buckets, and their reduction
    loss_scaling.py      the mean over ranks and micro-batches, and dynamic loss scaling
    optimizer.py         the update of a shard, and clipping by the global norm
    offload.py           the place of the update: the device, or the host
    sharded_muon.py      the update of a shard of matrices, whose direction needs them whole (optimizer=muon)
    collectives.py       reduce-scatter, all-gather and all-reduce, on gloo and on NCCL
    p2p_thread.py        gloo: sends and receives while the rank computes
    quantizer.py         8-bit codes and scales of blocks (quantize)
    quantized.py         reductions that send them
    gather.py            all-gathers of parameters: exact or quantized, from all ranks or from neighbours
    adapter.py           the engine's interface to the harness, and its setup
    unsupported.py       modules that cannot be trained
    checkpoint/          sharded save, and load into any stage and world size

Sources: Rajbhandari et al., ZeRO (SC 2020), section 5; Li et al., PyTorch Distributed (VLDB 2020), section 3.2.
"""

from __future__ import annotations

from dataclasses import replace

from bench.engines import compiler
from bench.engines.native.policy import POLICIES
from bench.engines.spec import (
    BLOCKS_OF_SHARDS,
    HYPERPARAMETERS,
    SCHEDULE,
    Capabilities,
    EngineSpec,
    EngineUnsupported,
    Traits,
    count_option,
    reject_debug_detail,
)
from bench.engines.unsupported_steps import reject_threads, reject_uses
from results.model import StepProperties
from results.resolved import EngineDescription
from results.training_settings import QUANTIZED, choices

CAPABILITIES = Capabilities(
    stages={
        0: "all-reduce per bucket",
        1: "reduce-scatter and all-gather per bucket",
        2: "the same, gradients kept as shards",
        3: "units gathered in forward and backward",
    },
    settings=(
        "bucket_mb",
        "overlap",
        "clip_norm",
        "accumulate",
        "quantize",
        "secondary_shard_size",
        "compile",
        "checkpointing",
        "checkpointing_budget",
        "offload",
        *HYPERPARAMETERS,
        *SCHEDULE,
    ),
    optimizers=choices("optimizer"),
    backends=("gloo", "nccl", "fake"),
)
PRELOAD = ("torch._dynamo", "torch.optim", "torch.profiler", "torch.utils.checkpoint")


def check_settings(spec: EngineSpec) -> None:
    """Raises EngineUnsupported for an invalid option, and for what does not go with offload, quantize, a second copy,
    compile or checked collectives; each other setting in ``CAPABILITIES`` alone is supported at every stage."""
    if spec.offload == "params":
        raise EngineUnsupported(
            "engine=native has no offload=params: it computes with shards that stay on the device; "
            "valid: none, optimizer"
        )
    if spec.offload != "none" and spec.optimizer == "muon":
        raise EngineUnsupported(
            f"engine=native has no offload={spec.offload} with optimizer=muon: the directions of matrices are computed "
            "and communicated on the device; valid: offload=none"
        )
    check_quantize(spec)
    check_secondary(spec)
    compiler.check_compile("native", spec)
    if spec.options.get("in_flight") is not None:
        count_option(spec, "in_flight")
    if spec.stage == 3 and spec.backend == "gloo" and spec.world_size > 1:
        reject_debug_detail(
            "engine=native at stage=3 over gloo", "a second thread sends, so ranks check its calls in different orders"
        )


def check_quantize(spec: EngineSpec) -> None:
    """Raises EngineUnsupported for 8-bit numbers in collectives that add them up or whose result is trained."""
    what = f"engine=native at stage={spec.stage} has no quantize={spec.quantize}"
    if spec.quantize != "none" and spec.stage == 0:
        raise EngineUnsupported(
            f"{what}: an all-reduce passes partial sums on, which would be quantized once per rank; "
            "valid: quantize=none, stage=1, 2, 3"
        )
    if "weights" in QUANTIZED[spec.quantize] and not POLICIES[spec.stage].shard_parameters:
        raise EngineUnsupported(
            f"{what}: parameters stay whole from step to step, so quantization would replace what is trained; "
            "valid: quantize=none, quantize=gradients, stage=3"
        )


def check_secondary(spec: EngineSpec) -> None:
    """Raises EngineUnsupported for a second copy of parameters that are not gathered, or of unequal groups."""
    size = spec.secondary_shard_size
    what = f"engine=native at stage={spec.stage} has no secondary_shard_size={size}"
    if size and not POLICIES[spec.stage].shard_parameters:
        raise EngineUnsupported(f"{what}: parameters stay whole; valid: secondary_shard_size=null, stage=3")
    if size and spec.world_size % size:
        divisors = [str(ranks) for ranks in range(2, spec.world_size + 1) if spec.world_size % ranks == 0]
        raise EngineUnsupported(f"{what}: valid with gpus={spec.world_size}: {', '.join(['null', *divisors])}")


def check_model(spec: EngineSpec, step: StepProperties) -> None:
    """Raises EngineUnsupported for forwards in several threads, where each of them unshards parameters."""
    if POLICIES[spec.stage].shard_parameters:
        reject_threads(step, "native", spec, "stage=0, 1, 2")
        if spec.compile:
            why, valid = "which compiled code reads while it is sharded", "stage=0, 1, 2, compile=false"
            reject_uses(step, "native at stage=3 with compile=true", "used_outside", why, valid)


def traits(spec: EngineSpec) -> Traits:
    """Moments of 8 bits have a scale for each block of a shard, where a single process has blocks of each weight."""
    traits = compiler.TRAITS if spec.compile else Traits()
    moments = BLOCKS_OF_SHARDS if spec.optimizer == "adam8bit" else ""
    communicated = "" if spec.quantize == "none" else f"quantize={spec.quantize} communicates 8-bit numbers"
    return replace(traits, outside_parity="; ".join(filter(None, [communicated, moments])))


BUCKET_MB = 25.0
"""Default cap of a bucket at stages 0 to 2, as DistributedDataParallel's; stage 3 keeps each unit apart by default."""


def bucket_mb(spec: EngineSpec) -> float | None:
    """Cap of a bucket in MiB; None: a bucket per unit."""
    return spec.bucket_mb or (None if POLICIES[spec.stage].shard_parameters else BUCKET_MB)


def expected(spec: EngineSpec) -> EngineDescription:
    """The entries of ``describe`` that follow from the settings alone, for predictions before any rank starts."""
    return {"bucket_mb": bucket_mb(spec), "in_flight": spec.options.get("in_flight") or 1}
