"""Hugging Face Accelerate over the process group that the rank already has."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from bench.engines.accelerate import INSTALLED
from bench.engines.activation_checkpointing import checkpoint_units
from bench.engines.base import Batch, Engine, LossFunction, RankContext
from bench.engines.kept_state import kept_state
from bench.engines.muon import describe_muon, hidden_matrices
from bench.engines.optimizers import LearningRate, build_optimizer, fused
from bench.engines.precision import cast_inputs, cast_module, weight_dtype
from bench.engines.spec import EngineSpec
from bench.engines.torch import ddp
from bench.engines.unsupported import reject_sparse
from bench.engines.whole_loss import WholeLoss
from results.resolved import EngineDescription

if INSTALLED:  # the fork server imports the adapters of all engines that a sweep names
    import accelerate
    from accelerate.utils import DDPCommunicationHookType, DistributedDataParallelKwargs


class AccelerateDescription(EngineDescription, total=False):
    """Entries of this engine alone."""

    first_bucket_mb: float
    gradient_as_bucket_view: bool
    mixed_precision: str


class AccelerateEngine:
    """``Accelerator.prepare``, ``accumulate``, ``backward`` and ``clip_grad_norm_``."""

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        reject_sparse("accelerate", module)
        self.spec = spec
        module = cast_module(module, spec.precision)
        checkpoint_units(units, spec.checkpointing)
        set_variables(context)
        self.accelerator = accelerate.Accelerator(
            cpu=context.device.type == "cpu",
            mixed_precision="bf16" if spec.precision == "amp_bf16" else "no",
            gradient_accumulation_steps=spec.accumulate,
            kwargs_handlers=[ddp_settings(spec)],
        )
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        optimizer = build_optimizer(spec, weights, hidden_matrices(module), **fused(spec, weights))
        self.module, self.optimizer = self.accelerator.prepare(WholeLoss(module), optimizer)
        self.learning_rate = LearningRate(spec, self.optimizer)

    def forward_backward(self, batch: Batch, loss_fn: LossFunction, *, sync: bool) -> Tensor:
        """``accumulate`` counts the micro-batches itself, and divides by their number in ``backward``."""
        with self.accelerator.accumulate(self.module):
            loss: Tensor = self.module(loss_fn, cast_inputs(batch, weight_dtype(self.spec.precision)))
            self.accelerator.backward(loss)
        return loss.detach()

    def optimizer_step(self) -> None:
        self.learning_rate.advance()
        if self.spec.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.module.parameters(), self.spec.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, list[Tensor]]:
        """DDP's reducer keeps its buckets to itself: they are seen here only as gradients that are views of them."""
        return kept_state(list(self.module.parameters()), self.optimizer, self.module.buffers())

    def full_state_dict(self) -> dict[str, Tensor]:
        module = self.accelerator.unwrap_model(self.module).module
        return {name: weight.detach() for name, weight in module.named_parameters()}

    def describe(self) -> AccelerateDescription:
        bucket_mb, first_bucket_mb = ddp.bucket_sizes_mb(self.spec.bucket_mb)
        described: AccelerateDescription = {
            "library": f"accelerate {accelerate.__version__}, torch {torch.__version__}",
            "wrapper": type(self.module).__name__,
            "overlap": True,
            "bucket_mb": bucket_mb,
            "first_bucket_mb": first_bucket_mb,
            "gradient_as_bucket_view": self.module.gradient_as_bucket_view,
            "mixed_precision": self.accelerator.mixed_precision,
        }
        if self.spec.compression != "none":
            described["reduce_dtype"] = ddp.REDUCE_DTYPES[self.spec.compression]
        if muon := describe_muon(self.spec, "on every rank").get("muon"):
            described["muon"] = muon
        return described

    def teardown(self) -> None:
        """Nothing: the process leaves with ``os._exit``."""


def ddp_settings(spec: EngineSpec) -> DistributedDataParallelKwargs:
    hooks = {"bf16": DDPCommunicationHookType.BF16, "fp16": DDPCommunicationHookType.FP16}
    own = {} if spec.bucket_mb is None else {"bucket_cap_mb": spec.bucket_mb}
    return DistributedDataParallelKwargs(
        gradient_as_bucket_view=spec.options["gradient_as_bucket_view"],
        comm_hook=hooks.get(spec.compression, DDPCommunicationHookType.NO),
        **own,
    )


def set_variables(context: RankContext) -> None:
    """What ``accelerate launch`` would set. Accelerate takes the process group that is there.

    Its own variables (ACCELERATE_GRADIENT_ACCUMULATION_STEPS, for one) would replace settings, so they are deleted.
    Without OMP_NUM_THREADS it would choose a number of threads. A local world of all ranks is what it asks no address
    of another host for.
    """
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]
    local_rank = context.device.index if context.device.type == "cuda" else context.placement.local_rank
    os.environ |= {
        "RANK": str(context.rank),
        "WORLD_SIZE": str(context.world_size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(context.world_size),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }


def create() -> Engine:
    return AccelerateEngine()
