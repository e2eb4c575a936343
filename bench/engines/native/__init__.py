"""The native engine: DDP and ZeRO 1-3 in one design, where every knob means the same thing at every stage.

Parameters lie flat in buckets. A bucket is cut into N equal shards, of which rank r owns the r-th. What a stage
keeps whole and what it keeps as a shard is all that tells the stages apart:

    stage   parameters      gradients       optimizer state   collectives per bucket and step
    0       whole           whole           whole             all-reduce gradients
    1       whole           whole, reduced  shard             reduce-scatter gradients, all-gather parameters
    2       whole           shard           shard             the same; the bucket is freed once reduced
    3       shard           shard           shard             all-gather parameters (forward and backward),
                                                              reduce-scatter gradients

Read in this order:

    policy.py        what a stage shards
    layout.py        which element lies where, and which rank owns it
    collectives.py   reduce-scatter and all-gather, on gloo and on NCCL
    p2p_thread.py    gloo: who sends and receives while the rank computes
    bucket.py        a bucket's parameters: flat, as views, and (stage 3) gathered and freed
    gradients.py     backward: gradients into buckets, buckets onto the wire
    units.py         stage 3: which bucket is whole when
    optimizer.py     optimizer, clipping by the global norm, loss scaling
    adapter.py       the step, from setup to optimizer_step
    param_access.py  stage 3: parameters that are read outside their unit
    refusals.py      modules that it does not support
    checkpoint/      sharded save, and load into any stage and world size

Source: Rajbhandari et al., ZeRO (SC 2020), section 5; Li et al., PyTorch Distributed (VLDB 2020), section 3.2.
"""

from __future__ import annotations

from bench.engines.spec import Capabilities, EngineSpec, count_option, refuse_debug_detail

CAPABILITIES = Capabilities(
    stages={
        0: "all-reduce per bucket",
        1: "reduce-scatter and all-gather per bucket",
        2: "the same, gradients kept as shards",
        3: "units gathered in forward and backward",
    },
    settings=("bucket_mb", "overlap", "clip_norm", "accumulate"),
    backends=("gloo", "nccl", "fake"),
)
PRELOAD = ("torch._dynamo", "torch.optim", "torch.profiler", "torch.utils.checkpoint")


def refuse(spec: EngineSpec) -> None:
    """Every knob that it has is honoured at every stage. Raises EngineUnsupported for an option that makes no sense."""
    if spec.options.get("in_flight") is not None:
        count_option(spec, "in_flight")
    if spec.stage == 3 and spec.backend == "gloo" and spec.world_size > 1:
        refuse_debug_detail(
            "engine=native at stage=3 over gloo", "a thread of its own sends, so ranks check its calls in another order"
        )
