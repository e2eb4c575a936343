"""Layers sliced over the ranks of a replica; gradients reduced over the replicas."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from bench.engines.activation_checkpointing import checkpoint_units
from bench.engines.base import Batch, Engine, LossFunction, RankContext
from bench.engines.kept_state import kept_state
from bench.engines.optimizers import FUSED, build_optimizer
from bench.engines.precision import autocast, cast_inputs, cast_module, weight_dtype
from bench.engines.spec import EngineSpec, EngineUnsupported
from bench.engines.torch.adapter import gradient_sync
from bench.engines.unsupported import reject_for_fully_shard, reject_sparse
from results.resolved import EngineDescription

STYLES: dict[str, type[ParallelStyle]] = {"colwise": ColwiseParallel, "rowwise": RowwiseParallel}
"""Slices of a linear layer's outputs, whose results stay apart; slices of its inputs, whose results are summed."""

Layout = tuple[DeviceMesh, Any]
"""Mesh and placements of a DTensor."""


def plan_of(module: nn.Module, degree: int) -> dict[str, str]:
    """The style of each layer that ``module.tp_plan`` names, by path. Raises EngineUnsupported if it cannot be done."""
    name, patterns = type(module).__name__, getattr(module, "tp_plan", None)
    if not patterns:
        raise EngineUnsupported(f"engine=tensor_parallel slices what a module's tp_plan names; {name} has none")
    plan = {}
    for pattern, style in patterns.items():
        layers = {path: part for path, part in module.named_modules() if fnmatch(path, pattern)}
        if not layers or style not in STYLES:
            raise EngineUnsupported(
                f"engine=tensor_parallel cannot follow tp_plan of {name}: {pattern}={style} names no layer or style; "
                f"valid styles: {', '.join(STYLES)}"
            )
        for path, layer in layers.items():
            if not isinstance(layer, nn.Linear):
                raise EngineUnsupported(f"engine=tensor_parallel slices linear layers; {path} of {name} is none")
            sliced = layer.out_features if style == "colwise" else layer.in_features
            if sliced % degree:
                raise EngineUnsupported(
                    f"engine=tensor_parallel cannot slice {path} of {name}: {sliced} does not divide by "
                    f"engine.degree={degree}"
                )
            plan[path] = style
    reject_tied(module, plan)
    return plan


def reject_tied(module: nn.Module, plan: dict[str, str]) -> None:
    """Raises EngineUnsupported for a weight of a sliced layer that another layer has too: slicing unties them."""
    layers = dict(module.named_modules())
    for path in plan:
        own = {id(weight) for weight in layers[path].parameters()}
        for other, layer in layers.items():
            if layer is not layers[path] and any(id(weight) in own for weight in layer.parameters(recurse=False)):
                raise EngineUnsupported(
                    f"engine=tensor_parallel cannot slice {path} of {type(module).__name__}: "
                    f"{other or 'the module itself'} has its weights too"
                )


def reject_frozen(module: nn.Module, plan: dict[str, str]) -> None:
    """Raises EngineUnsupported for a frozen weight of a sliced layer: DDP would train it."""
    for path in plan:
        for name, weight in module.get_submodule(path).named_parameters():
            if not weight.requires_grad:
                raise EngineUnsupported(
                    f"engine=tensor_parallel at stage=0 has no replicas with a frozen {path}.{name}: "
                    "DistributedDataParallel trains every slice"
                )


def sliced_share(module: nn.Module) -> float:
    """The part of all parameters that is sliced."""
    weights = list(module.parameters())
    sliced = sum(weight.numel() for weight in weights if isinstance(weight, DTensor))
    return round(sliced / sum(weight.numel() for weight in weights), 4)


def whole(weight: Tensor, layout: Layout | None) -> Tensor:
    """A parameter put together from the slices of all ranks; collective."""
    if layout and not isinstance(weight, DTensor):
        weight = DTensor.from_local(weight, *layout, run_check=False)
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


class TensorParallelDescription(EngineDescription, total=False):
    """Entries of this engine alone."""

    degree: int
    replicas: int
    plan: dict[str, str]
    """How each module is sliced, by name."""
    sliced_share: float


class TensorParallelEngine:
    """parallelize_module over ``tensor``, then DistributedDataParallel or fully_shard over ``data``."""

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        self.spec, self.device = spec, context.device
        degree = spec.options["degree"]
        self.replicas = context.world_size // degree
        reject_sparse("tensor_parallel", module)
        self.plan = plan_of(module, degree)
        mesh = init_device_mesh(context.device.type, (self.replicas, degree), mesh_dim_names=("data", "tensor"))
        module = cast_module(module, spec.precision)
        styles = {path: STYLES[style]() for path, style in self.plan.items()}
        parallelize_module(module, mesh["tensor"], styles)
        self.sliced_share = sliced_share(module)
        checkpoint_units(units, spec.checkpointing)
        if spec.stage == 3:
            reject_for_fully_shard("tensor_parallel at stage=3", module, units)
            for unit in units:
                fully_shard(unit, mesh=mesh["data"])
            fully_shard(module, mesh=mesh["data"])
        self.layouts = {
            name: (weight.device_mesh, weight.placements)
            for name, weight in module.named_parameters()
            if isinstance(weight, DTensor)
        }
        self.module = module
        if spec.stage == 0 and self.replicas > 1:
            reject_frozen(module, self.plan)
            self.module = self._replicate(module, mesh["data"])
        self.weights = dict(module.named_parameters())  # now: DDP hides those that it handed on to forward as DTensors
        self.buffers = list(module.buffers())
        self.optimizer = self._build_optimizer()

    def _replicate(self, module: nn.Module, data: DeviceMesh) -> nn.Module:
        """DDP over the replicas. It trains the local slices and makes DTensors of them in forward."""
        return DistributedDataParallel(
            module,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            device_mesh=data,
            gradient_as_bucket_view=True,
        )

    def _build_optimizer(self) -> torch.optim.Optimizer:
        """One group for each mesh: torch's multi-tensor and fused updates do not mix DTensors of several."""
        groups: dict[DeviceMesh | None, list[Tensor]] = {}
        for weight in self.weights.values():
            if weight.requires_grad:
                groups.setdefault(weight.device_mesh if isinstance(weight, DTensor) else None, []).append(weight)
        name = self.spec.optimizer
        distributed = any(isinstance(weight, DTensor) for weight in self.weights.values())
        fused = {"fused": True} if name in FUSED and not (distributed and name == "sgd") else {}
        return build_optimizer(self.spec, [{"params": group} for group in groups.values()], **fused)

    def forward_backward(self, batch: Batch, loss_fn: LossFunction, *, sync: bool) -> Tensor:
        with gradient_sync(self.module, sync):
            with autocast(self.spec.precision, self.device.type):
                loss = loss_fn(self.module, cast_inputs(batch, weight_dtype(self.spec.precision)))
            (loss / self.spec.accumulate).backward()
        return loss.detach()

    def optimizer_step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, list[Tensor]]:
        return kept_state(list(self.weights.values()), self.optimizer, self.buffers)

    def full_state_dict(self) -> dict[str, Tensor]:
        return {name: whole(weight.detach(), self.layouts.get(name)) for name, weight in self.weights.items()}

    def describe(self) -> TensorParallelDescription:
        return {
            "library": f"torch {torch.__version__}",
            "wrapper": {0: "DistributedDataParallel" if self.replicas > 1 else None, 3: "fully_shard"}[self.spec.stage],
            "degree": self.spec.options["degree"],
            "replicas": self.replicas,
            "plan": self.plan,
            "sliced_share": self.sliced_share,
        }

    def teardown(self) -> None:
        """Nothing: the process leaves with ``os._exit``."""


def create() -> Engine:
    return TensorParallelEngine()
