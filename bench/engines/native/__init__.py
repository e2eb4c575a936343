"""The native engine: DDP and ZeRO 1-3 in one design, in which every setting means the same at every stage.

Vocabulary (FSDP2's, ``torch.distributed.fsdp``, where it has a word)
---------------------------------------------------------------------
bucket           consecutive parameters in one flat tensor, padded to N equal shards; rank r owns the r-th
unsharded param  a bucket's flat tensor; the module's parameters are views of it
sharded param    what this rank's optimizer updates: its shard of a bucket (at stage 0: all of it)
unshard          allocate the unsharded param and all-gather it: ``start_unshard``, then ``wait_for_unshard``
reshard          free the memory of the unsharded param
param group      the buckets of one unit, or of several small ones: they are unsharded and resharded together
root             the group of parameters that belong to no unit, or to several
sharding policy  what a stage shards
in flight        a collective that was started and not yet waited for: an object, and ``wait`` ends its life
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
    Seen,
    Traits,
    count_option,
    reject_debug_detail,
)
from results.resolved import EngineDescription
from results.training_settings import choices

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
    """Raises EngineUnsupported for an invalid option, and for what does not go with offload, compile or checked
    collectives; each setting in ``CAPABILITIES`` alone is supported at every stage."""
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
    compiler.check_compile("native", spec)
    if spec.options.get("in_flight") is not None:
        count_option(spec, "in_flight")
    if spec.stage == 3 and spec.backend == "gloo" and spec.world_size > 1:
        reject_debug_detail(
            "engine=native at stage=3 over gloo", "a second thread sends, so ranks check its calls in different orders"
        )


def check_model(spec: EngineSpec, seen: Seen) -> None:
    """Raises EngineUnsupported for forwards in several threads, where each of them unshards parameters."""
    if POLICIES[spec.stage].shard_parameters:
        seen.reject_threads("native", spec, "stage=0, 1, 2")
        if spec.compile:
            why = "which compiled code reads while it is sharded"
            seen.reject_uses("native at stage=3 with compile=true", "used_outside", why, "stage=0, 1, 2, compile=false")


def traits(spec: EngineSpec) -> Traits:
    """Moments of 8 bits have a scale for each block of a shard, where a single process has blocks of each weight."""
    traits = compiler.TRAITS if spec.compile else Traits()
    return replace(traits, outside_parity=BLOCKS_OF_SHARDS) if spec.optimizer == "adam8bit" else traits


BUCKET_MB = 25.0
"""Default cap of a bucket at stages 0 to 2, as DistributedDataParallel's; stage 3 keeps each unit apart by default."""


def bucket_mb(spec: EngineSpec) -> float | None:
    """Cap of a bucket in MiB; None: a bucket per unit."""
    return spec.bucket_mb or (None if POLICIES[spec.stage].shard_parameters else BUCKET_MB)


def expected(spec: EngineSpec) -> EngineDescription:
    """The entries of ``describe`` that follow from the settings alone, for predictions before any rank starts."""
    return {"bucket_mb": bucket_mb(spec), "in_flight": spec.options.get("in_flight") or 1}
