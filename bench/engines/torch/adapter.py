"""PyTorch's own data parallelism, used as documented."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.fsdp import FSDPModule
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from bench.engines.activation_checkpointing import checkpoint_units
from bench.engines.base import Batch, JoinableEngine, LossFunction, RankContext
from bench.engines.compiler import use_budget
from bench.engines.kept_state import optimizer_tensors
from bench.engines.muon import hidden_matrices
from bench.engines.offload import describe_offload
from bench.engines.optimizers import (
    OPTIMIZERS,
    LearningRate,
    build_optimizer,
    fused,
    hyperparameters,
    parameter_groups,
)
from bench.engines.precision import autocast, cast_inputs, cast_module, weight_dtype
from bench.engines.scaling import LossScaling
from bench.engines.spec import EngineSpec, EngineUnsupported
from bench.engines.torch import ddp, fsdp
from bench.engines.unsupported import reject_for_fully_shard, reject_sparse
from bench.engines.whole_loss import WholeLoss
from results.precision import PRECISIONS
from results.resolved import EngineDescription

UNREDUCED = "Expected to have finished reduction in the prior iteration"
"""How DistributedDataParallel's error begins where a parameter got no gradient."""


class ShardedDescription(EngineDescription, total=False):
    """Entries of ``fully_shard``."""

    compile: str | None
    reshard_after_forward: bool
    shard_size: int


class TorchEngine:
    """DistributedDataParallel at stages 0 and 1, fully_shard at stages 2 and 3."""

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        self.spec = spec
        self.sharded = spec.stage >= 2
        self.device = context.device
        reject_sparse("torch", module)
        module = cast_module(module, spec.precision)
        self.shadow: ddp.ShadowGradients | None = None
        self.hook: ddp.Hook | None = None
        checkpoint_units(units, spec.checkpointing)
        use_budget(spec)
        if self.sharded:
            reject_for_fully_shard(f"torch at stage={spec.stage}", module, units)
            self.module = fsdp.shard(WholeLoss(module) if context.first_use else module, units, spec, context)
        else:
            self.module = self._replicate(module)
        self.whole_loss = not self.sharded or bool(context.first_use)
        self.optimizer = self._build_optimizer(hidden_matrices(self.module))
        self.learning_rate = LearningRate(spec, self.optimizer)
        self.scaler = torch.amp.GradScaler(context.device.type, enabled=PRECISIONS[spec.precision].loss_scaling)
        self.averager = PeriodicModelAverager(spec.local_steps) if spec.local_steps > 1 else None

    def _replicate(self, module: nn.Module) -> nn.Module:
        wrapped = ddp.replicate(module, self.spec, self.device)
        self.hook = ddp.communication_hook(self.spec)
        if self.spec.join and self.spec.stage == 1:
            self.shadow = ddp.ShadowGradients(wrapped, self.hook)
        elif self.hook:
            wrapped.register_comm_hook(*self.hook)
        return wrapped

    def _build_optimizer(self, matrices: set[int]) -> torch.optim.Optimizer:
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        update = fused(self.spec, weights, sharded=self.sharded)
        if self.spec.stage == 1:
            ddp.reject_several_dtypes(weights, "stage=1", "ZeroRedundancyOptimizer takes one")
            settings = hyperparameters(self.spec)
            kind: Any = OPTIMIZERS[self.spec.optimizer]  # a class, or a function that makes the optimizer
            groups = parameter_groups(self.spec, weights, matrices)
            return ZeroRedundancyOptimizer(groups, kind, lr=self.spec.lr, **settings, **update)
        return build_optimizer(self.spec, weights, matrices, **update)

    def forward_backward(self, batch: Batch, loss_fn: LossFunction, *, sync: bool) -> Tensor:
        with gradient_sync(self.module, sync):
            with autocast(self.spec.precision, self.device.type):
                loss = self._loss(loss_fn, cast_inputs(batch, weight_dtype(self.spec.precision)))
            self.scaler.scale(loss / self.spec.accumulate).backward()
        return loss.detach()

    def _loss(self, loss_fn: LossFunction, batch: Batch) -> Tensor:
        if not self.whole_loss:
            return loss_fn(self.module, batch)
        try:
            loss: Tensor = self.module(loss_fn, batch)
        except RuntimeError as error:
            if str(error).startswith(UNREDUCED):
                raise EngineUnsupported(ddp.unused_message(self.spec.stage)) from error
            raise
        return loss

    def optimizer_step(self) -> None:
        self.learning_rate.advance()
        if self.spec.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.module.parameters(), self.spec.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.averager:
            self.averager.average_parameters(self.module.parameters())  # of those that have a gradient
        self.optimizer.zero_grad()

    def join(self) -> contextlib.AbstractContextManager[object]:
        assert isinstance(self.module, DistributedDataParallel)
        return ddp.joined(self.module, self.shadow, self.optimizer)

    def loss_scaling(self) -> LossScaling | None:
        return LossScaling.of(self.scaler)

    def state(self) -> dict[str, list[Tensor]]:
        """DDP's reducer keeps its buckets to itself: they are seen here only as gradients that are views of them.

        What PowerSGD has not sent yet, and its factors, count as gradients.
        """
        buffers = {"buffers": list(self.module.buffers())}
        return buffers if self.spec.offload == "params" else self._trained_state() | buffers

    def host_state(self) -> dict[str, list[Tensor]]:
        return self._trained_state() if self.spec.offload == "params" else {}

    def _trained_state(self) -> dict[str, list[Tensor]]:
        weights: list[Tensor] = list(self.module.parameters())
        optimizer = self.optimizer.optim if isinstance(self.optimizer, ZeroRedundancyOptimizer) else self.optimizer
        unsent = ddp.kept_by(self.hook[0]) if self.hook else []
        return {
            "master" if self.sharded and self.spec.precision == "bf16_master" else "params": weights,
            "grads": [weight.grad for weight in weights if weight.grad is not None] + unsent,
            "optimizer": optimizer_tensors(optimizer),
        }

    def full_state_dict(self) -> dict[str, Tensor]:
        """Under bf16_master the weights that forward sees, not the master weights that are all it keeps."""
        module = self.module.module if isinstance(self.module, DistributedDataParallel) else self.module
        module = module.module if isinstance(module, WholeLoss) else module
        whole = {
            name: (gathered(weight, self.device) if isinstance(weight, DTensor) else weight).detach()
            for name, weight in module.named_parameters()
        }
        if self.spec.precision != "bf16_master":
            return whole
        return {name: weight.bfloat16() for name, weight in whole.items()}

    def describe(self) -> ShardedDescription | ddp.ReplicatedDescription:
        if isinstance(self.module, DistributedDataParallel):
            return {"compile": self._compiled(), **ddp.describe(self.module, self.spec, self.hook)}
        return {
            "library": f"torch {torch.__version__}",
            "overlap": self.device.type == "cuda",  # by streams; elsewhere it waits for each collective
            "compile": self._compiled(),
            "wrapper": "fully_shard",
            "reshard_after_forward": self.spec.stage == 3,
            "shard_size": self.spec.shard_size or self.spec.world_size,
            **describe_offload(self.spec),
        }

    def _compiled(self) -> str | None:
        """How the module is compiled; the first steps do it."""
        if not self.spec.compile:
            return None
        return "each unit, inside fully_shard" if self.sharded else "whole, cut at DDP's buckets"

    def teardown(self) -> None:
        """Nothing: the process leaves with ``os._exit``, which is the only safe end of a DDP module over gloo."""


def gathered(weight: DTensor, device: torch.device) -> Tensor:
    """The whole of a sharded weight, on ``device``: ranks communicate from there, also with ``offload``."""
    on_device = weight.to(device)
    assert isinstance(on_device, DTensor)
    return on_device.full_tensor()


def gradient_sync(module: nn.Module, sync: bool) -> contextlib.AbstractContextManager[object]:
    """The context of a micro-batch that reduces gradients in backward, or does not."""
    if isinstance(module, DistributedDataParallel):
        return contextlib.nullcontext() if sync else module.no_sync()
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(sync)
    return contextlib.nullcontext()


def create() -> JoinableEngine:
    return TorchEngine()
