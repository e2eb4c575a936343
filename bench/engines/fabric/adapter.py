"""Lightning Fabric over the process group that the rank already has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bench.engines.activation_checkpointing import checkpoint_units
from bench.engines.base import Batch, Engine, LossFunction, RankContext
from bench.engines.fabric import INSTALLED
from bench.engines.kept_state import kept_state
from bench.engines.optimizers import LearningRate, build_optimizer, fused
from bench.engines.precision import cast_inputs, cast_module, weight_dtype
from bench.engines.spec import EngineSpec
from bench.engines.torch import ddp
from bench.engines.torch.fsdp import shard
from bench.engines.unsupported import reject_for_fully_shard, reject_sparse
from bench.engines.whole_loss import WholeLoss
from results.resolved import EngineDescription

if INSTALLED:  # the fork server imports the adapters of all engines that a sweep names
    import lightning_fabric
    from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy

    from bench.engines.fabric.environment import LaunchEnvironment


class FabricDescription(EngineDescription, total=False):
    """Entries of this engine alone."""

    strategy: str
    precision: str
    first_bucket_mb: float
    gradient_as_bucket_view: bool
    reshard_after_forward: bool


class FabricEngine:
    """``Fabric.setup_module``, ``setup_optimizers``, ``no_backward_sync``, ``backward`` and ``clip_gradients``."""

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        self.spec, self.sharded = spec, spec.stage >= 2
        reject_sparse("fabric", module)
        module = cast_module(module, spec.precision)
        if self.sharded:
            reject_for_fully_shard(f"fabric at stage={spec.stage}", module, units)
        checkpoint_units(units, spec.checkpointing)
        self.fabric = lightning_fabric.Fabric(
            accelerator=context.device.type,
            devices=context.placement.local_ranks,
            num_nodes=context.placement.hosts,
            strategy=strategy(units, spec, context),
            precision="bf16-mixed" if spec.precision == "amp_bf16" else "32-true",
            plugins=[LaunchEnvironment(context)],
        )
        self.fabric.launch()
        self.module = self.fabric.setup_module(WholeLoss(module), move_to_device=False)
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        optimizer = build_optimizer(spec, weights, **fused(spec, weights, sharded=self.sharded))
        self.optimizer = self.fabric.setup_optimizers(optimizer)
        self.learning_rate = LearningRate(spec, self.optimizer)

    def forward_backward(self, batch: Batch, loss_fn: LossFunction, *, sync: bool) -> Tensor:
        with self.fabric.no_backward_sync(self.module, enabled=not sync):
            loss: Tensor = self.module(loss_fn, cast_inputs(batch, weight_dtype(self.spec.precision)))
            self.fabric.backward(loss / self.spec.accumulate)
        return loss.detach()

    def optimizer_step(self) -> None:
        self.learning_rate.advance()
        if self.spec.clip_norm is not None:
            max_norm = self.spec.clip_norm
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=max_norm, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, list[Tensor]]:
        """DDP's reducer keeps its buckets to itself: they are seen here only as gradients that are views of them."""
        weights, buffers = list(self.module.parameters()), self.module.buffers()
        return kept_state(weights, self.optimizer, buffers, master=self.spec.precision == "bf16_master")

    def full_state_dict(self) -> dict[str, Tensor]:
        """Under bf16_master the weights that forward sees."""
        whole = {
            name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach()
            for name, weight in self.module.module.module.named_parameters()
        }
        if self.spec.precision != "bf16_master":
            return whole
        return {name: weight.bfloat16() for name, weight in whole.items()}

    def describe(self) -> FabricDescription:
        described: FabricDescription = {
            "library": f"lightning-fabric {lightning_fabric.__version__}, torch {torch.__version__}",
            "strategy": type(self.fabric.strategy).__name__,
            "precision": self.fabric.strategy.precision.precision,
            "wrapper": "fully_shard" if self.sharded else "DistributedDataParallel",
            "overlap": not self.sharded or self.spec.device == "cuda",
        }
        if self.sharded:
            described["reshard_after_forward"] = self.spec.stage == 3
            return described
        described["bucket_mb"], described["first_bucket_mb"] = ddp.bucket_sizes_mb(self.spec.bucket_mb)
        described["gradient_as_bucket_view"] = self.spec.options["gradient_as_bucket_view"]
        return described

    def teardown(self) -> None:
        """Nothing: the process leaves with ``os._exit``."""


def strategy(units: list[nn.Module], spec: EngineSpec, context: RankContext) -> DDPStrategy | ModelParallelStrategy:
    """Of stage 0, DDPStrategy; of others the one whose function calls ``fully_shard``."""
    if spec.stage == 0:
        own: dict[str, Any] = {} if spec.bucket_mb is None else {"bucket_cap_mb": spec.bucket_mb}
        return DDPStrategy(gradient_as_bucket_view=spec.options["gradient_as_bucket_view"], **own)
    return ModelParallelStrategy(
        lambda module, mesh: shard(module, units, spec, context),
        data_parallel_size=spec.world_size,
        tensor_parallel_size=1,
    )


def create() -> Engine:
    return FabricEngine()
