"""PyTorch's FullyShardedDataParallel, used as documented, with ``use_orig_params=True``."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import BackwardPrefetch, FullyShardedDataParallel, MixedPrecision, ShardingStrategy
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.distributed.fsdp.wrap import CustomPolicy

from bench.engines.activation_checkpointing import checkpoint_units
from bench.engines.base import Batch, Engine, LossFunction, RankContext
from bench.engines.fsdp1 import WRAPPER
from bench.engines.kept_state import kept_state
from bench.engines.optimizers import FUSED, LearningRate, build_optimizer
from bench.engines.precision import autocast, cast_inputs, cast_module, weight_dtype, widen_weights
from bench.engines.scaling import LossScaling
from bench.engines.spec import EngineSpec, EngineUnsupported
from bench.engines.torch.fsdp import mesh
from bench.engines.unsupported import reject_sparse, reject_uncut
from bench.engines.views import dense_strides
from bench.engines.whole_loss import WholeLoss
from results.precision import PRECISIONS
from results.resolved import EngineDescription

PREFETCH = {"pre": BackwardPrefetch.BACKWARD_PRE, "post": BackwardPrefetch.BACKWARD_POST, "none": None}


class Fsdp1Description(EngineDescription, total=False):
    """Entries of this engine alone."""

    sharding_strategy: str
    shard_size: int
    backward_prefetch: str | None
    forward_prefetch: bool
    limit_all_gathers: bool


class Fsdp1Engine:
    """FullyShardedDataParallel around each unit, and around the module for what is left."""

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        self.spec, self.device = spec, context.device
        reject_sparse("fsdp1", module)
        module = cast_module(module, spec.precision)
        reject_unflattened(f"fsdp1 at stage={spec.stage}", module, units)
        checkpoint_units(units, spec.checkpointing)
        self.whole_loss = bool(context.first_use)
        self.module = shard(WholeLoss(module) if self.whole_loss else module, units, spec, context)
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        scales = PRECISIONS[spec.precision].loss_scaling
        # ShardedGradScaler's flag of overflow has one dimension more than fused optimizers take (torch 2.15).
        fused = {"fused": True} if spec.optimizer in FUSED and not scales else {}
        self.optimizer = build_optimizer(spec, weights, **fused)
        self.learning_rate = LearningRate(spec, self.optimizer)
        self.scaler = ShardedGradScaler(self.device.type, enabled=scales)

    def forward_backward(self, batch: Batch, loss_fn: LossFunction, *, sync: bool) -> Tensor:
        with contextlib.nullcontext() if sync else self.module.no_sync():
            batch = cast_inputs(batch, weight_dtype(self.spec.precision))
            with autocast(self.spec.precision, self.device.type):
                loss: Tensor = self.module(loss_fn, batch) if self.whole_loss else loss_fn(self.module, batch)
            self.scaler.scale(loss / self.spec.accumulate).backward()
        return loss.detach()

    def optimizer_step(self) -> None:
        self.learning_rate.advance()
        if self.spec.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            self.module.clip_grad_norm_(self.spec.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def loss_scaling(self) -> LossScaling | None:
        return LossScaling.of(self.scaler)

    def state(self) -> dict[str, list[Tensor]]:
        """Parts of flattened units. Their gradients outlive ``zero_grad`` until the next forward."""
        flat = flat_parameters(self.module)
        return kept_state(flat, self.optimizer, self.module.buffers(), master=self.spec.precision == "bf16_master")

    def full_state_dict(self) -> dict[str, Tensor]:
        """Under bf16_master the weights that forward sees, not the master weights that are all it keeps."""
        dtype = torch.bfloat16 if self.spec.precision == "bf16_master" else None
        prefix = "module." if self.whole_loss else ""
        with FullyShardedDataParallel.summon_full_params(self.module, writeback=False):
            return {
                name.removeprefix(prefix): weight.detach().to(dtype, copy=True)
                for name, weight in self.module.named_parameters()
            }

    def describe(self) -> Fsdp1Description:
        prefetch = {value: name for name, value in PREFETCH.items() if value}
        return {
            "library": f"torch {torch.__version__}",
            "overlap": self.device.type == "cuda",  # by streams; elsewhere it waits for each collective
            "wrapper": WRAPPER,
            "sharding_strategy": self.module.sharding_strategy.name,
            "shard_size": self.spec.shard_size or self.spec.world_size,
            "backward_prefetch": prefetch.get(self.module.backward_prefetch),
            "forward_prefetch": self.module.forward_prefetch,
            "limit_all_gathers": self.module.limit_all_gathers,
        }

    def teardown(self) -> None:
        """Nothing: the process leaves with ``os._exit``."""


def shard(
    module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext
) -> FullyShardedDataParallel:
    """``module``, cast to its precision, with each unit and what is left at the root flattened and sharded."""
    own: dict[str, Any] = {}
    if spec.precision == "bf16_master":
        widen_weights(module)
        own["mixed_precision"] = MixedPrecision(
            param_dtype=torch.bfloat16,
            reduce_dtype=torch.bfloat16,
            _module_classes_to_ignore=(),  # BatchNorm would have fp32 weights in a unit of its own
        )
    hybrid = spec.shard_size not in (None, spec.world_size)
    if hybrid:
        own["device_mesh"] = mesh(spec, context)
    chosen = {id(unit) for unit in units}
    return FullyShardedDataParallel(
        module,
        sharding_strategy=strategy(spec.stage, hybrid),
        auto_wrap_policy=CustomPolicy(lambda part: id(part) in chosen and part is not module),
        backward_prefetch=PREFETCH[spec.options["backward_prefetch"]],
        forward_prefetch=spec.options["forward_prefetch"],
        limit_all_gathers=spec.options["limit_all_gathers"],
        device_id=context.device,
        use_orig_params=True,  # else all weights of a unit are trained, or none
        **own,
    )


def strategy(stage: int, hybrid: bool) -> ShardingStrategy:
    if hybrid:
        return ShardingStrategy._HYBRID_SHARD_ZERO2 if stage == 2 else ShardingStrategy.HYBRID_SHARD
    return ShardingStrategy.SHARD_GRAD_OP if stage == 2 else ShardingStrategy.FULL_SHARD


def flat_parameters(module: nn.Module) -> list[Tensor]:
    """The parts of flattened units that this rank keeps. Private API of torch."""
    wrappers = FullyShardedDataParallel.fsdp_modules(module)
    return [wrapper._flat_param for wrapper in wrappers if wrapper._flat_param is not None]


def reject_unflattened(engine: str, module: nn.Module, units: list[nn.Module]) -> None:
    """Raises EngineUnsupported for what cannot be flattened, or would be gathered with one of its units only."""
    reject_uncut(engine, module, units, WRAPPER)
    for name, weight in module.named_parameters():
        if not weight.is_floating_point():
            raise EngineUnsupported(f"engine={engine}: {name} is {weight.dtype}; valid: floating-point parameters")
        if weight.stride() != dense_strides(weight):
            raise EngineUnsupported(
                f"engine={engine}: {name} is not dense (shape {tuple(weight.shape)}, strides {weight.stride()}), so it "
                "cannot be flattened; valid: a dense parameter, engine=native"
            )
    inside = [list(unit.parameters()) for unit in units]
    taken = {id(weight) for weights in inside for weight in weights}
    for weights in (*inside, [weight for weight in module.parameters() if id(weight) not in taken]):
        dtypes = sorted({str(weight.dtype).removeprefix("torch.") for weight in weights})
        if len(dtypes) > 1:
            raise EngineUnsupported(
                f"engine={engine}: a unit has parameters of {' and '.join(dtypes)}, which cannot be flattened together"
            )


def create() -> Engine:
    return Fsdp1Engine()
