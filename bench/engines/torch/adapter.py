"""PyTorch's own data parallelism, used as its documentation says."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from bench.engines.base import Batch, Engine, LossFunction, RankContext
from bench.engines.optimizers import FUSED, OPTIMIZERS, build_optimizer
from bench.engines.precision import autocast, cast_inputs, cast_module, weight_dtype
from bench.engines.spec import EngineSpec


class TorchEngine:
    """DistributedDataParallel at stages 0 and 1, fully_shard at stages 2 and 3."""

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        self.spec = spec
        self.context = context
        self.sharded = spec.stage >= 2
        if not (self.sharded and spec.precision == "bf16_master"):
            module = cast_module(module, spec.precision)
        self.module = self._shard(module, units) if self.sharded else self._replicate(module)
        self.optimizer = self._build_optimizer()
        self.scaler = torch.amp.GradScaler(context.device.type, enabled=spec.precision == "amp_fp16")

    def _replicate(self, module: nn.Module) -> nn.Module:
        bucket: dict[str, Any] = {} if self.spec.bucket_mb is None else {"bucket_cap_mb": self.spec.bucket_mb}
        return DistributedDataParallel(
            module,
            device_ids=[self.context.device] if self.context.device.type == "cuda" else None,
            gradient_as_bucket_view=self.spec.options["gradient_as_bucket_view"],
            **bucket,
        )

    def _shard(self, module: nn.Module, units: list[nn.Module]) -> nn.Module:
        mesh = init_device_mesh(self.context.device.type, (self.context.world_size,))
        policy = MixedPrecisionPolicy()
        if self.spec.precision == "bf16_master":
            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)
            for buffer in module.buffers():  # fully_shard casts parameters and inputs, but no buffer
                buffer.data = buffer.to(torch.bfloat16) if buffer.is_floating_point() else buffer.data
        reshard = self.spec.stage == 3
        for unit in units:
            fully_shard(unit, mesh=mesh, reshard_after_forward=reshard, mp_policy=policy)
        fully_shard(module, mesh=mesh, reshard_after_forward=reshard, mp_policy=policy)
        return module

    def _build_optimizer(self) -> torch.optim.Optimizer:
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        sharded_sgd = self.sharded and self.spec.optimizer == "sgd"  # DTensor has no rule for the fused SGD
        fused = {"fused": True} if self.spec.optimizer in FUSED and not sharded_sgd else {}
        if self.spec.stage == 1:
            kind, settings = OPTIMIZERS[self.spec.optimizer]
            return ZeroRedundancyOptimizer(weights, kind, lr=self.spec.lr, **settings, **fused)
        return build_optimizer(self.spec.optimizer, weights, self.spec.lr, **fused)

    def forward_backward(self, batch: Batch, loss_fn: LossFunction, *, sync: bool) -> Tensor:
        with self._gradient_sync(sync):
            with autocast(self.spec.precision, self.context.device.type):
                loss = loss_fn(self.module, cast_inputs(batch, weight_dtype(self.spec.precision)))
            self.scaler.scale(loss / self.spec.accumulate).backward()
        return loss.detach()

    def _gradient_sync(self, sync: bool) -> contextlib.AbstractContextManager[object]:
        if isinstance(self.module, DistributedDataParallel):
            return contextlib.nullcontext() if sync else self.module.no_sync()
        assert isinstance(self.module, FSDPModule)
        self.module.set_requires_gradient_sync(sync)
        return contextlib.nullcontext()

    def optimizer_step(self) -> None:
        if self.spec.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.module.parameters(), self.spec.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, list[Tensor]]:
        """DDP's reducer keeps its buckets to itself: they are seen here only as gradients that are views of them."""
        weights: list[Tensor] = list(self.module.parameters())
        held = self.optimizer.optim if isinstance(self.optimizer, ZeroRedundancyOptimizer) else self.optimizer
        return {
            "master" if self.sharded and self.spec.precision == "bf16_master" else "params": weights,
            "grads": [weight.grad for weight in weights if weight.grad is not None],
            "optimizer": [
                entry for state in held.state.values() for entry in state.values() if isinstance(entry, Tensor)
            ],
            "buffers": list(self.module.buffers()),
        }

    def full_state_dict(self) -> dict[str, Tensor]:
        module = self.module.module if isinstance(self.module, DistributedDataParallel) else self.module
        return {
            name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach()
            for name, weight in module.named_parameters()
        }

    def describe(self) -> dict[str, Any]:
        described: dict[str, Any] = {"library": f"torch {torch.__version__}", "overlap": True}
        if self.sharded:
            return described | {"wrapper": "fully_shard", "reshard_after_forward": self.spec.stage == 3}
        bucket_mb = self.spec.bucket_mb
        return described | {
            "wrapper": "DistributedDataParallel",
            "bucket_mb": 25.0 if bucket_mb is None else bucket_mb,
            "first_bucket_mb": 1.0 if bucket_mb is None else bucket_mb,
            "gradient_as_bucket_view": self.spec.options["gradient_as_bucket_view"],
        }

    def teardown(self) -> None:
        """Nothing: the process leaves with ``os._exit``, which is the only safe end of a DDP module over gloo."""


def create() -> Engine:
    return TorchEngine()
