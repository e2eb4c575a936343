"""DeepSpeed's ZeRO, configured as documented: supported and unsupported settings.

stage 0  DeepSpeedEngine alone: gradients are all-reduced after backward
stage 1  DeepSpeedZeroOptimizer, which also keeps a second copy of the weights as shards, in fp32 too
stage 2  the same, with gradients partitioned
stage 3  DeepSpeedZeroOptimizer_Stage3, its thresholds set so that the smallest parameter is sharded
"""

from __future__ import annotations

import importlib.metadata
import importlib.util

from bench.engines.deepspeed.offload import check_offload
from bench.engines.spec import (
    HYPERPARAMETERS,
    Capabilities,
    EngineSpec,
    EngineUnavailable,
    EngineUnsupported,
    Traits,
    option,
)
from bench.engines.unsupported_steps import reject_differentiation, reject_threads, reject_uneven, reject_uses
from results.model import StepProperties
from results.precision import PRECISIONS
from results.training_settings import QUANTIZED

CAPABILITIES = Capabilities(
    stages={
        0: "all-reduce after backward",
        1: "optimizer state partitioned",
        2: "and gradients",
        3: "and parameters",
    },
    settings=(
        "bucket_mb",
        "overlap",
        "clip_norm",
        "accumulate",
        "quantize",
        "checkpointing",
        "offload",
        *HYPERPARAMETERS,
    ),
    backends=("gloo", "nccl", "fake"),
    why_not={"secondary_shard_size": "its zero_hpz_partition_size was not tested; valid: null, engine=native"},
)
INSTALLED = importlib.util.find_spec("deepspeed") is not None
QUANTIZES_SINCE = "0.19.8"
"""The first version whose kernels for ``quantize`` were read."""
PRELOAD = (
    "torch.profiler",
    "torch._dynamo.repro.after_dynamo",  # some of its functions are compiled by torch when first called
    "torch._inductor.compile_fx",
    *(("bench.engines.deepspeed.library",) if INSTALLED else ()),
)


def traits(spec: EngineSpec) -> Traits:
    """Stage 3 has its ranks compare what they agreed on when it is set up."""
    return Traits(
        unsilenced="ranks would not hear that they agree" if spec.stage == 3 else "",
        outside_parity="" if spec.quantize == "none" else f"quantize={spec.quantize} communicates 8-bit numbers",
    )


def check_model(spec: EngineSpec, step: StepProperties) -> None:
    """Raises EngineUnsupported for a model whose ranks train different parameters, or a loss of gradients."""
    reject_differentiation(
        step, "deepspeed", spec, "and its hooks take the first of two backward passes for the step's", "engine=native"
    )
    if spec.stage == 3:
        reject_threads(step, "deepspeed", spec, "stage=0, 1 or 2")
    if spec.stage == 3 and not step.first_use:
        why, valid = "when its ranks have it in parts", "stage=0, 1 or 2, engine=native"
        reject_uses(step, "deepspeed at stage=3", "used_bare", why, valid)
    if spec.stage > 0:
        valid = "stage=0, engine=native at stage=0, 1, 2"
        reject_uneven(step, "deepspeed", spec, "so the collectives of its buckets would not match", valid)


def check_settings(spec: EngineSpec) -> None:
    """Raises EngineUnavailable without the library, EngineUnsupported for what its configuration cannot say."""
    if not INSTALLED:
        raise EngineUnavailable(
            "engine=deepspeed needs a library that is not installed; on Linux: pip install 'ddp-zero-bench[deepspeed]'"
        )
    kernel = option(spec, "kernel", "torch", "deepspeed")
    if kernel == "deepspeed" and spec.optimizer not in ("adam", "adamw"):
        raise EngineUnsupported(
            f"engine.kernel=deepspeed has no optimizer={spec.optimizer}: its fused kernels are adam and adamw"
        )
    if spec.optimizer == "muon" and spec.stage > 0:
        raise EngineUnsupported(
            f"engine=deepspeed at stage={spec.stage} has no optimizer=muon: it flattens the weights of torch's "
            "optimizers; its own Muon is not supported here; "
            "valid: stage=0, engine=native"
        )
    if spec.stage == 3 and spec.checkpointing == "selective":
        raise EngineUnsupported(
            "engine=deepspeed at stage=3 has no checkpointing=selective: its gradients then differ from those of a "
            "single process (0.19.8)"
        )
    reject_overlap_on_cpu(spec)
    check_quantize(spec)
    check_offload(spec)
    if spec.stage == 0:
        reject_at_stage_0(spec)
    elif PRECISIONS[spec.precision].loss_scaling and spec.clip_norm is not None:
        raise EngineUnsupported(
            f"engine=deepspeed at stage={spec.stage} has no clip_norm with precision=amp_fp16: it clips gradients "
            "that are still scaled"
        )


def reject_at_stage_0(spec: EngineSpec) -> None:
    if spec.bucket_mb is not None:
        raise EngineUnsupported("engine=deepspeed at stage=0 has no bucket_mb: it reduces all gradients at once")
    if spec.precision == "bf16":
        raise EngineUnsupported("engine=deepspeed at stage=0 has no precision=bf16: it would keep fp32 master weights")
    if spec.overlap:
        raise EngineUnsupported("engine=deepspeed at stage=0 has no overlap=true: it reduces after backward")


def check_quantize(spec: EngineSpec) -> None:
    """Raises EngineUnsupported where ZeRO++'s kernels do not run, or would leave numbers as they are (0.19.8);
    EngineUnavailable for an earlier version, whose kernels were not read."""
    if spec.quantize == "none":
        return
    what = f"engine=deepspeed has no quantize={spec.quantize}"
    valid = "valid: quantize=none, engine=native at stage=1, 2, 3"
    if spec.device == "cpu":
        raise EngineUnsupported(f"{what} on device=cpu: its kernels (QuantizerBuilder) need CUDA; {valid}")
    if "gradients" in QUANTIZED[spec.quantize]:
        raise EngineUnsupported(
            f"{what}: its kernel reads gradients as fp16, which no precision here has, and it leaves gradients within "
            f"a host as they are; {valid}"
        )
    if spec.stage < 3:
        raise EngineUnsupported(f"{what} at stage={spec.stage}: parameters are whole; valid: quantize=none, stage=3")
    if spec.world_size == 1:
        raise EngineUnsupported(
            f"{what} with gpus=1: no shard is communicated; valid: quantize=none, gpus of at least 2"
        )
    from packaging.version import Version  # which deepspeed requires

    installed = importlib.metadata.version("deepspeed")
    if Version(installed) < Version(QUANTIZES_SINCE):
        raise EngineUnavailable(
            f"engine=deepspeed with quantize={spec.quantize} needs deepspeed {QUANTIZES_SINCE} or later; "
            f"{installed} is installed"
        )


def reject_overlap_on_cpu(spec: EngineSpec) -> None:
    """Two ranks behind a slow link take as long with overlap_comm as without (docs/explanation/communication.md)."""
    if spec.overlap and spec.stage and spec.device == "cpu":
        raise EngineUnsupported(
            f"engine=deepspeed at stage={spec.stage} has no overlap=true on device=cpu: overlap_comm uses CUDA "
            "streams, and where there are none it waits for each collective; valid: false, null"
        )
