"""Tensor parallelism by torch's parallelize_module, with data parallelism over the replicas.

``engine.degree`` consecutive ranks compute one replica: each holds a slice of the layers that the module's ``tp_plan``
names, and they exchange activations. The rest of the module is whole on each of them.

stage 0  replicas under DistributedDataParallel
stage 3  replicas under fully_shard, so that each rank keeps 1/(replicas x degree) of a sliced layer
"""

from __future__ import annotations

from bench.engines.spec import (
    HYPERPARAMETERS,
    Capabilities,
    EngineSpec,
    EngineUnsupported,
    Traits,
    reject_debug_detail,
    reject_degree,
)
from bench.engines.unsupported_steps import (
    Uses,
    reject_first_use,
    reject_skipped,
    reject_threads,
    reject_uneven,
    reject_uses,
)
from results.model import StepProperties

CAPABILITIES = Capabilities(
    stages={
        0: "parallelize_module; DistributedDataParallel over replicas",
        3: "parallelize_module; fully_shard over replicas",
    },
    settings=("accumulate", "checkpointing", *HYPERPARAMETERS),
    precisions=("fp32", "amp_bf16", "bf16"),
    optimizers=("sgd", "adam", "adamw", "rmsprop"),
    backends=("gloo", "nccl", "fake"),
    why_not={
        "stage": "torch combines parallelize_module with DistributedDataParallel (0) and fully_shard (3)",
        "optimizer": "Muon orthogonalizes whole matrices, of which ranks have slices",
        "quantize": "it sends floating-point numbers; valid: quantize=none, engine=native",
        "clip_norm": "torch's clip_grad_norm_ does not mix sliced and whole gradients",
    },
)
PRELOAD = (
    "torch._dynamo",
    "torch.nn.parallel",
    "torch.distributed.tensor.parallel",
    "torch.distributed.fsdp",
    "torch.profiler",
)


def check_settings(spec: EngineSpec) -> None:
    """Raises EngineUnsupported if the ranks do not divide into replicas, or parity could not be judged."""
    reject_degree("tensor_parallel", spec)
    if spec.stage == 0 and spec.world_size > spec.options["degree"]:
        reject_debug_detail(
            "engine=tensor_parallel at stage=0 with replicas", "DistributedDataParallel crashes in torch 2.15"
        )
    if spec.optimizer == "rmsprop" and spec.precision != "fp32":
        raise EngineUnsupported(
            f"engine=tensor_parallel has no optimizer=rmsprop with precision={spec.precision}: its first update is "
            "10 lr whatever the gradient, which makes the rounding of partial sums too large to tell from an error"
        )


def check_model(spec: EngineSpec, step: StepProperties) -> None:
    """Raises EngineUnsupported for a loss that bypasses the module's forward, where slices are put together, and for a
    model that skips parameters, where replicas wait for each other's gradients."""
    reject_first_use(step, "tensor_parallel")
    reject_threads(step, "tensor_parallel", spec, "engine=native or torch at stage=0")
    uses: Uses = "used_outside" if spec.stage == 3 else "used_bare"
    reject_uses(step, "tensor_parallel", uses, "when ranks have slices of it", "engine=native")
    if spec.stage == 0 and spec.world_size > spec.options["degree"]:
        why = "and DistributedDataParallel waits for all"
        reject_skipped(step, "tensor_parallel", spec, why, "engine=native")
    if spec.stage == 3:
        why = "so the collectives of fully_shard would not match"
        reject_uneven(step, "tensor_parallel", spec, why, "engine=native at stage=0, 1, 2")


def traits(spec: EngineSpec) -> Traits:
    return Traits(
        ranks_per_replica=spec.options["degree"],
        partial_sums=True,
        own_random="the model draws random numbers, and the slices of engine=tensor_parallel draw others",
    )
