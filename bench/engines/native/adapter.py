"""The engine's interface to the harness: setup, and what is read from the engine; ``step.py`` has the step."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.engines.activation_checkpointing import checkpoint_units
from bench.engines.base import Batch, Engine, LossFunction, RankContext
from bench.engines.compiler import compile_units, use_budget
from bench.engines.muon import describe_muon, hidden_matrices
from bench.engines.native import bucket_mb
from bench.engines.native.collectives import collectives
from bench.engines.native.gradients import BucketGradients, GradientReducer
from bench.engines.native.loss_scaling import LossScale
from bench.engines.native.offload import CopyStreams, OnDevice, OnHost, UpdatePlace
from bench.engines.native.optimizer import ShardOptimizer
from bench.engines.native.param_group import ParamGroups, backward_order
from bench.engines.native.policy import POLICIES
from bench.engines.native.quantized import QuantizedReductions
from bench.engines.native.step import TrainingStep
from bench.engines.native.unshard_schedule import AlwaysUnsharded, Schedule, UnshardSchedule
from bench.engines.native.unsupported import reject_module
from bench.engines.offload import describe_offload
from bench.engines.optimizers import LearningRate
from bench.engines.precision import cast_module, weight_dtype
from bench.engines.scaling import LossScaling
from bench.engines.spec import EngineSpec
from results.precision import PRECISIONS
from results.resolved import EngineDescription
from results.training_settings import QUANTIZED

MIB = 1 << 20


class NativeDescription(EngineDescription, total=False):
    """Entries of this engine alone."""

    largest_bucket_bytes: int
    compile: str | None
    buffers: str


class NativeEngine:
    """DDP and ZeRO 1-3 over flat buckets."""

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        self.spec = spec
        self.context = context
        self.policy = POLICIES[spec.stage]
        reject_module(module, self.policy)
        self.module = cast_module(module, spec.precision)
        self.names = dict(self.module.named_parameters())
        self.collectives = collectives(context, spec.backend)
        self.overlap = spec.overlap is not False
        self.loss_scale = LossScale(enabled=PRECISIONS[spec.precision].loss_scaling)
        self._broadcast_start()
        self.groups = ParamGroups(
            self.module,
            self.collectives,
            self.policy,
            cap_bytes=None if self.bucket_mb is None else self.bucket_mb * MIB,
            master_weights=PRECISIONS[spec.precision].master and spec.offload == "none",
            matrices=hidden_matrices(self.module) if spec.optimizer == "muon" else (),
            quantizes="weights" in QUANTIZED[spec.quantize],
            neighbours=self.collectives.within(spec.secondary_shard_size) if spec.secondary_shard_size else None,
        ).assign(units)
        self.buckets = [bucket for group in self.groups for bucket in group.buckets]
        self.schedule: Schedule = (
            UnshardSchedule(self.module, self.groups, prefetch=self.overlap)
            if self.policy.shard_parameters
            else AlwaysUnsharded(self.groups)
        )
        checkpoint_units(units, spec.checkpointing, self.schedule.recomputing)
        use_budget(spec)
        if spec.compile:
            compile_units("native", units)
        self.reducer = GradientReducer(
            backward_order(self.module, self.groups, self.policy),
            QuantizedReductions(self.collectives) if "gradients" in QUANTIZED[spec.quantize] else self.collectives,
            self.policy,
            overlap=self.overlap,
            max_in_flight=spec.options.get("in_flight"),
            bucket_complete=self.schedule.bucket_complete,
            before_reduction=self.schedule.before_reduction,
        )
        place = update_places(spec, context.device)
        self.optimizers = [ShardOptimizer(gradients, spec, place(gradients)) for gradients in self.reducer.gradients]
        self.step = TrainingStep(
            self.module,
            spec,
            self.policy,
            context.device,
            schedule=self.schedule,
            reducer=self.reducer,
            optimizers=self.optimizers,
            learning_rate=LearningRate(spec, *(entry.optimizer for entry in self.optimizers)),
            loss_scale=self.loss_scale,
        )

    def _broadcast_start(self) -> None:
        """Every rank starts from rank 0's weights and buffers."""
        for tensor in (*self.names.values(), *self.module.buffers()):
            broadcast(tensor.detach())

    @property
    def bucket_mb(self) -> float | None:
        """Largest size of a bucket in MiB; None: a bucket per unit."""
        return bucket_mb(self.spec)

    def forward_backward(self, batch: Batch, loss_fn: LossFunction, *, sync: bool) -> Tensor:
        return self.step.forward_backward(batch, loss_fn, is_last=sync)

    def optimizer_step(self) -> None:
        self.step.update()

    def loss_scaling(self) -> LossScaling | None:
        return self.loss_scale.read()

    def state(self) -> dict[str, list[Tensor]]:
        params: list[Tensor] = []
        if not self.policy.shard_parameters:  # frozen parameters are in no bucket
            params += [parameter for parameter in self.names.values() if not parameter.requires_grad]
        params += [bucket.unsharded_param for bucket in self.buckets if bucket.is_unsharded]
        params += self.copies()
        shards = [bucket for bucket in self.buckets if bucket.shard_has_memory]
        return {
            "params": params + [bucket.sharded_param for bucket in shards if not bucket.has_master],
            "master": [bucket.sharded_param for bucket in shards if bucket.has_master],
            "grads": [tensor for gradients in self.reducer.gradients for tensor in gradients.memory()],
            "optimizer": [] if self.spec.offload == "optimizer" else self._optimizer_state(),
            "buffers": list(self.module.buffers()),
        }

    def copies(self) -> list[Tensor]:
        return [bucket.gather.secondary for bucket in self.buckets if bucket.gather.secondary is not None]

    def host_state(self) -> dict[str, list[Tensor]]:
        if self.spec.offload == "none":
            return {}
        by_bucket = [optimizer.place.host_state() for optimizer in self.optimizers]
        copies = {kind: [tensor for kinds in by_bucket for tensor in kinds[kind]] for kind in by_bucket[0]}
        return copies | {"optimizer": self._optimizer_state()}

    def _optimizer_state(self) -> list[Tensor]:
        return [tensor for optimizer in self.optimizers for tensor in optimizer.state()]

    def full_state_dict(self) -> dict[str, Tensor]:
        for group in self.groups:
            group.unshard(exact=True)
        full = {name: parameter.detach().clone() for name, parameter in self.names.items()}
        if self.policy.shard_parameters:
            for group in self.groups:
                group.reshard()
        return full

    def describe(self) -> NativeDescription:
        return {
            **describe_offload(self.spec),
            **describe_muon(self.spec, "all-gathered in bf16 for the update" if self.spec.stage else "on every rank"),
            "library": f"native, torch {torch.__version__}",
            "overlap": self.overlap,
            "compile": "each unit" if self.spec.compile else None,
            "bucket_mb": self.bucket_mb,
            "in_flight": self.reducer.max_in_flight,
            "buckets": len(self.buckets),
            "largest_bucket_bytes": max(bucket.unsharded_param.nbytes for bucket in self.buckets),
            "last_bucket_bytes": self.reducer.gradients[-1].bucket.unsharded_param.nbytes,
            "reduce_dtype": str(weight_dtype(self.spec.precision)).removeprefix("torch."),
            "buffers": "local to each rank after a common start",
        }

    def teardown(self) -> None:
        """Does nothing: hooks and buckets end with the process."""


def update_places(spec: EngineSpec, device: torch.device) -> Callable[[BucketGradients], UpdatePlace]:
    """Where each bucket is updated; those on the host share the streams of copies."""
    if spec.offload == "none":
        return lambda gradients: OnDevice(gradients.bucket)
    copies, master = CopyStreams(device), PRECISIONS[spec.precision].master
    return lambda gradients: OnHost(gradients.bucket, copies, master_weights=master)


def broadcast(tensor: Tensor) -> None:
    """Copies rank 0's values to ``tensor``, of any dtype and strides."""
    dense = tensor.contiguous()
    dist.broadcast(dense.reshape(-1).view(torch.uint8), 0)
    if dense.data_ptr() == tensor.data_ptr():
        return
    for dim, stride in enumerate(tensor.stride()):
        if stride == 0:  # expanded: there is one value
            tensor, dense = tensor.narrow(dim, 0, 1), dense.narrow(dim, 0, 1)
    tensor.copy_(dense)


def create() -> Engine:
    return NativeEngine()
