"""The native engine's step, from setup to optimizer_step; the package's docstring says where to read on."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.engines.base import Batch, Engine, LossFunction, RankContext
from bench.engines.native.bucket import Bucket
from bench.engines.native.collectives import collectives
from bench.engines.native.gradients import GradientReducer
from bench.engines.native.layout import lay_out
from bench.engines.native.optimizer import LossScale, ShardOptimizer
from bench.engines.native.policy import POLICIES
from bench.engines.native.refusals import refuse_module
from bench.engines.native.units import Group, Phase, UnitSchedule, group_units
from bench.engines.precision import AUTOCAST, autocast, cast_inputs, cast_module, weight_dtype
from bench.engines.scaling import LossScaling
from bench.engines.spec import EngineSpec
from results.precision import PRECISIONS

BUCKET_MB = 25.0
"""Default cap of a bucket at stages 0 to 2, as DistributedDataParallel's; stage 3 keeps each unit apart by default."""
MIB = 1 << 20


class NativeEngine:
    """DDP and ZeRO 1-3 over flat buckets."""

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        self.spec = spec
        self.policy = POLICIES[spec.stage]
        refuse_module(module, self.policy)
        self.context = context
        self.module = cast_module(module, spec.precision)
        self.names = dict(self.module.named_parameters())
        self.collectives = collectives(context, spec.backend)
        self.overlap = spec.overlap is not False
        self.loss_scale = LossScale(enabled=PRECISIONS[spec.precision].loss_scaling)
        self._agree_on_start()
        self.groups = self._group(units)
        self.buckets = [bucket for group in self.groups for bucket in group.buckets]
        for bucket in self.buckets:
            bucket.keep_shard(
                partitioned=self.policy.shard_optimizer,
                master=PRECISIONS[spec.precision].master,
                freeable=self.policy.shard_parameters,
            )
        self.schedule = (
            UnitSchedule(self.module, self.groups, prefetch=self.overlap) if self.policy.shard_parameters else None
        )
        self.reducer = GradientReducer(
            self._backward_order(),
            self.collectives,
            self.policy,
            overlap=self.overlap,
            in_flight=spec.options.get("in_flight"),
        )
        if self.schedule:
            self.reducer.on_full = Bucket.free
            self.reducer.on_launch = self.schedule.agree_on_reduction
        self.optimizer = ShardOptimizer(self.reducer.gradients, spec, self.policy, self.collectives)

    def _agree_on_start(self) -> None:
        """Every rank starts from rank 0's weights and buffers."""
        for tensor in (*self.names.values(), *self.module.buffers()):
            broadcast(tensor.detach())

    def _group(self, units: list[nn.Module]) -> list[Group]:
        """Sharded parameters: a group per unit (or run of units). Else one, of all trainable ones, last ones first."""
        cap = None if self.bucket_mb is None else self.bucket_mb * MIB
        if self.policy.shard_parameters:
            grouped = group_units(self.module, units, cap)
            names = {part: name or "the root" for name, part in self.module.named_modules()}
            return [
                Group(" + ".join(names[part] for part in modules), modules, self._buckets(parameters, cap))
                for modules, parameters in grouped
            ]
        trainable = [parameter for parameter in self.names.values() if parameter.requires_grad]
        return [Group("the module", [self.module], self._buckets(trainable[::-1], cap))]

    def _buckets(self, parameters: list[nn.Parameter], cap: float | None) -> list[Bucket]:
        """Buckets of ``parameters`` in their order, apart by dtype and by whether they are trained."""
        kinds: dict[tuple[torch.dtype, bool], list[nn.Parameter]] = {}
        for parameter in parameters:
            kinds.setdefault((parameter.dtype, parameter.requires_grad), []).append(parameter)
        return [
            Bucket(layout, same, self.collectives)
            for same in kinds.values()
            for layout in lay_out(
                [parameter.numel() for parameter in same],
                range(len(same)),
                cap,
                self.context.world_size,
                same[0].element_size(),
                short_end=not self.policy.shard_parameters,
            )
        ]

    def _backward_order(self) -> list[Bucket]:
        """Buckets in the order in which backward fills them: units from the last to the first, the root at the end."""
        if not self.policy.shard_parameters:
            return self.buckets
        units = [group for group in self.groups if group.modules != [self.module]]
        root = [group for group in self.groups if group.modules == [self.module]]
        return [bucket for group in (*units[::-1], *root) for bucket in group.buckets[::-1]]

    @property
    def bucket_mb(self) -> float | None:
        """Cap of a bucket in MiB; None: a bucket per unit."""
        return self.spec.bucket_mb or (None if self.policy.shard_parameters else BUCKET_MB)

    @property
    def _loss_divisor(self) -> int:
        """The part of the mean over ranks and micro-batches that is folded into the loss, which costs nothing.

        In fp32 all of it, and in bfloat16 autocast too where it is a power of two: neither rounds nor leaves the range.
        Under amp_fp16 a smaller loss overflows at another step. There it is ``accumulate`` alone, as in PyTorch's
        recipe, so that updates are skipped where DistributedDataParallel skips them.
        """
        whole = self.context.world_size * self.spec.accumulate
        if self.loss_scale.enabled:
            return self.spec.accumulate
        exact = self.spec.precision in AUTOCAST and whole & (whole - 1) == 0
        return whole if exact or self.spec.precision == "fp32" else 1

    @property
    def _gradient_divisor(self) -> int:
        """The rest of the mean, divided out of the summed gradients before the update."""
        return self.context.world_size * self.spec.accumulate // self._loss_divisor

    def forward_backward(self, batch: Batch, loss_fn: LossFunction, *, sync: bool) -> Tensor:
        with self._phase("forward"), autocast(self.spec.precision, self.context.device.type):
            loss = loss_fn(self.module, cast_inputs(batch, weight_dtype(self.spec.precision)))
        if not self.schedule:
            for bucket in self.buckets:
                bucket.take_back()
        self.reducer.begin(reduce=sync or self.policy.reduces_every_micro_batch)
        scale = self.loss_scale.value / self._loss_divisor
        with self._phase("backward"):
            (loss if scale == 1 else loss * scale).backward()
            self.reducer.end()
        return loss.detach()

    def _phase(self, phase: Phase) -> contextlib.AbstractContextManager[None]:
        """Stage 3: units are gathered and freed as the phase passes through them."""
        return self.schedule.passing(phase) if self.schedule else contextlib.nullcontext()

    def optimizer_step(self) -> None:
        self.optimizer.step(self._gradient_divisor, self.loss_scale)
        for gradients in self.reducer.gradients:
            gradients.clear()

    def loss_scaling(self) -> LossScaling | None:
        return self.loss_scale.read()

    def state(self) -> dict[str, list[Tensor]]:
        master = PRECISIONS[self.spec.precision].master
        frozen: list[Tensor] = [parameter for parameter in self.names.values() if not parameter.requires_grad]
        held: dict[str, list[Tensor]] = {"params": [] if self.policy.shard_parameters else frozen, "master": []}
        for bucket in self.buckets:
            if bucket.is_whole:
                held["params"].append(bucket.whole)
            if bucket.owns_shard:
                held["master" if master and bucket.trainable else "params"].append(bucket.shard)
        held["grads"] = [tensor for gradients in self.reducer.gradients for tensor in gradients.held()]
        held["optimizer"] = self.optimizer.state()
        held["buffers"] = list(self.module.buffers())
        return held

    def full_state_dict(self) -> dict[str, Tensor]:
        for group in self.groups:
            group.gather()
        whole = {name: parameter.detach().clone() for name, parameter in self.names.items()}
        if self.policy.shard_parameters:
            for group in self.groups:
                group.free()
        return whole

    def describe(self) -> dict[str, Any]:
        return {
            "library": f"native, torch {torch.__version__}",
            "overlap": self.overlap,
            "bucket_mb": self.bucket_mb,
            "in_flight": self.reducer.in_flight,
            "buckets": len(self.buckets),
            "largest_bucket_bytes": max(bucket.whole.nbytes for bucket in self.buckets),
            "last_bucket_bytes": self.reducer.gradients[-1].bucket.whole.nbytes,
            "reduce_dtype": str(weight_dtype(self.spec.precision)).removeprefix("torch."),
            "buffers": "local to each rank after a common start",
        }

    def teardown(self) -> None:
        """Nothing: hooks and buckets go with the process."""


def broadcast(tensor: Tensor) -> None:
    """Rank 0's values of any dtype and strides, into ``tensor``."""
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
