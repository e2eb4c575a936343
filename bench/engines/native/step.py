"""One training step, at every stage: forward, backward with gradient reduction, optimizer, all-gather."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.engines.base import Batch, LossFunction
from bench.engines.native.gradients import GradientReducer
from bench.engines.native.loss_scaling import LossScale, gradient_divisor, loss_divisor
from bench.engines.native.optimizer import ShardOptimizer, gradient_factor
from bench.engines.native.policy import ShardingPolicy
from bench.engines.native.unshard_schedule import Schedule
from bench.engines.optimizers import LearningRate
from bench.engines.precision import autocast, cast_inputs, weight_dtype
from bench.engines.spec import EngineSpec


class TrainingStep:
    """The phases of a step, in the order in which they run.

        phase        where                              what
        forward      parameters sharded                 unshard each group, compute, reshard it
        backward     parameters sharded                 unshard each group again, reshard a bucket once it is complete
                     optimizer state not sharded        all-reduce complete buckets of gradients
                     optimizer state sharded            reduce-scatter them
        optimizer    everywhere                         update the own shard (without sharding: all) of each bucket,
                                                        on the device or, with offload, on the host
        all-gather   only parameters are not sharded    all-gather the updated parameters

    Forward and backward run for each micro-batch. Where gradients are sharded, each micro-batch is reduced; else only
    the last one.
    """

    def __init__(
        self,
        module: nn.Module,
        spec: EngineSpec,
        policy: ShardingPolicy,
        device: torch.device,
        *,
        schedule: Schedule,
        reducer: GradientReducer,
        optimizers: list[ShardOptimizer],
        learning_rate: LearningRate,
        loss_scale: LossScale,
    ) -> None:
        self.module = module
        self.spec = spec
        self.policy = policy
        self.device = device
        self.schedule = schedule
        self.reducer = reducer
        self.optimizers = optimizers
        self.learning_rate = learning_rate
        self.loss_scale = loss_scale
        self.loss_divisor = loss_divisor(spec)
        self.gradient_divisor = gradient_divisor(spec)

    def forward_backward(self, micro_batch: Batch, loss_fn: LossFunction, *, is_last: bool) -> Tensor:
        """Computes and reduces the gradients of one micro-batch; returns its loss, detached and unscaled."""
        # Forward. Hooks of the schedule unshard a group before its modules compute, and reshard it after them.
        with self.schedule.phase("forward"), autocast(self.spec.precision, self.device.type):
            loss = loss_fn(self.module, cast_inputs(micro_batch, weight_dtype(self.spec.precision)))

        # Backward. Hooks unshard groups again. Once a bucket's gradients are complete, it is resharded and reduced.
        self.reducer.start_backward(reduce=is_last or self.policy.reduces_every_micro_batch)
        scale = self.loss_scale.value / self.loss_divisor
        with self.schedule.phase("backward"):
            (loss if scale == 1 else loss * scale).backward()
            self.reducer.finish_backward()
        return loss.detach()

    def update(self) -> None:
        """Updates the parameters, unless gradients are not finite and the loss is scaled; drops the gradients."""
        self.learning_rate.advance()
        # Optimizer. Each rank updates the shards that it owns. With offload, the norm is computed while gradients are
        # copied to the host.
        for optimizer in self.optimizers:
            optimizer.start_step()
        factor = gradient_factor(self.reducer.gradients, self.gradient_divisor, self.spec.clip_norm, self.loss_scale)
        all_gathers = []
        for optimizer in self.optimizers:
            if factor is None:
                optimizer.skip_step()
                optimizer.bucket.gather.forget()  # as after an update, so that each step communicates the same bytes
                continue
            optimizer.step(factor)
            optimizer.bucket.copy_in()
            # All-gather. It is in flight while the next shards are updated. Muon first gathers averaged gradients for
            # its next shard; backends run collectives in order, so there it waits for this one.
            if self.policy.all_gathers_after_update:
                all_gathers.append(optimizer.bucket.start_all_gather())
        for all_gather in all_gathers:
            all_gather.wait()
        for gradients in self.reducer.gradients:
            gradients.clear()
