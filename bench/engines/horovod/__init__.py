"""Horovod 0.28.1, its last release, over its own gloo: what it supports and what it does not.

``hvd.DistributedOptimizer`` hands each gradient to a background thread as soon as backward has made it. Every
``cycle_time_ms`` the threads of all ranks agree on the gradients that all of them have, copy these into a fusion
buffer of at most ``bucket_mb``, all-reduce it and copy them back.
"""

from __future__ import annotations

import importlib.util

from bench.engines.spec import HYPERPARAMETERS, Capabilities, EngineSpec, EngineUnavailable, EngineUnsupported, Traits

INSTALLED = importlib.util.find_spec("horovod") is not None

CAPABILITIES = Capabilities(
    stages={0: "hvd.DistributedOptimizer"},
    settings=("bucket_mb", "overlap", "clip_norm", "accumulate", "compression", "join", *HYPERPARAMETERS),
    precisions=("fp32", "amp_bf16", "amp_fp16"),
    optimizers=("sgd", "adam", "adamw", "rmsprop"),
    backends=("gloo",),
    only_loopback=True,
    why_not={
        "stage": "Horovod keeps the whole model state on every rank",
        "precision": "Horovod reduces no bfloat16 tensors",
        "optimizer": "Horovod's last release is older than Muon, and its wrapper of optimizers was not tested with it",
        "quantize": "its fused all-reduces are of floating-point numbers; valid: quantize=none, engine=native",
        "backend": "scripts/build_horovod.sh builds it for gloo",
    },
)

PRELOAD = ("torch._dynamo", "torch.profiler")


def check_settings(spec: EngineSpec) -> None:
    """Raises EngineUnsupported for what Horovod has no setting for, EngineUnavailable where it is not installed."""
    if spec.device == "cuda":
        raise EngineUnsupported("engine=horovod has no device=cuda: scripts/build_horovod.sh builds it for CPU")
    if spec.compression not in ("none", "fp16"):
        raise EngineUnsupported(f"engine=horovod has no compression={spec.compression}: it has none, fp16")
    cycle_time = spec.options.get("cycle_time_ms")
    if not isinstance(cycle_time, int | float) or isinstance(cycle_time, bool) or cycle_time < 0:
        raise EngineUnsupported(f"engine.cycle_time_ms={cycle_time} is not valid; valid: a number of at least 0")
    if not INSTALLED:
        raise EngineUnavailable(
            "engine=horovod needs horovod, which is not installed: scripts/build_horovod.sh builds it"
        )


def traits(spec: EngineSpec) -> Traits:
    """Plain data parallelism, over a library of its own."""
    return Traits(
        uncounted="Horovod's all-reduces are its own library's",
        unsilenced="Horovod's all-reduces are its own library's",
    )
