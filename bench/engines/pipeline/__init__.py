"""Pipeline parallelism by torch.distributed.pipelining, with data parallelism over the replicas.

``engine.degree`` consecutive ranks compute one replica: each holds a stage, a part of the chain of layers that the
module is, and passes activations on and their gradients back. A replica's batch is cut into ``engine.microbatches`` so
that the stages work at the same time.

stages.py cuts the chain, adapter.py takes the step.
"""

from __future__ import annotations

from bench.engines.spec import (
    HYPERPARAMETERS,
    Capabilities,
    EngineSpec,
    EngineUnsupported,
    Traits,
    count_option,
    option,
    reject_degree,
)
from bench.engines.unsupported_steps import reject_first_use, reject_uses
from results.model import StepProperties

CAPABILITIES = Capabilities(
    stages={0: "PipelineStage; an all-reduce of gradients over replicas"},
    settings=("checkpointing", *HYPERPARAMETERS),
    precisions=("fp32", "amp_bf16", "bf16"),
    why_not={
        "stage": "a stage of the pipeline is whole on its rank (0)",
        "precision": "it has fp32, amp_bf16, bf16: no loss scaling and no master weights",
        "backend": "it has gloo, nccl: the stages around a rank's own must be there, to say what they pass on",
        "quantize": "it sends floating-point numbers; valid: quantize=none, engine=native",
        "accumulate": "engine.microbatches is its accumulation",
        "clip_norm": "no rank sees the global norm",
    },
)
PRELOAD = ("torch._dynamo", "torch.nn.parallel", "torch.distributed.pipelining", "torch.profiler")


def check_settings(spec: EngineSpec) -> None:
    """Raises EngineUnsupported for what cannot be cut or scheduled."""
    reject_degree("pipeline", spec)
    if spec.device == "cuda" and spec.backend == "gloo":
        raise EngineUnsupported(
            "engine=pipeline has no backend=gloo on device=cuda: gloo sends and receives from the host only. "
            "Valid: backend=nccl with a GPU for each rank, device=cpu"
        )
    degree, microbatches = spec.options["degree"], count_option(spec, "microbatches")
    if option(spec, "schedule", "gpipe", "1f1b") == "1f1b" and microbatches < degree:
        raise EngineUnsupported(
            f"engine=pipeline with engine.schedule=1f1b has no engine.microbatches={microbatches}: "
            f"valid: at least engine.degree={degree}"
        )


def check_model(spec: EngineSpec, step: StepProperties) -> None:
    """Raises EngineUnsupported for a loss that needs the whole module, of which no rank has all weights."""
    reject_first_use(step, "pipeline")
    reject_uses(step, "pipeline", "used_bare", "and no rank has all weights", "engine=native, torch")


def traits(spec: EngineSpec) -> Traits:
    return Traits(
        ranks_per_replica=spec.options["degree"],
        microbatches=spec.options["microbatches"],
        own_random="the model draws random numbers, and each stage of engine=pipeline draws its own",
        unsilenced="stages would no longer wait for each other, which is more than communication",
    )
