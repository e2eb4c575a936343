"""A stage of the chain on each rank of a replica; gradients reduced over the replicas."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.distributed.pipelining.schedules import PipelineScheduleSingle

from bench.engines.activation_checkpointing import checkpoint_units
from bench.engines.base import Batch, Engine, LossFunction, RankContext
from bench.engines.batches import map_tensors, tensors_of
from bench.engines.kept_state import kept_state
from bench.engines.muon import describe_muon, hidden_matrices
from bench.engines.optimizers import FUSED, build_optimizer
from bench.engines.pipeline import stages
from bench.engines.precision import autocast, cast_inputs, cast_module, weight_dtype
from bench.engines.spec import EngineSpec, EngineUnsupported
from bench.engines.unsupported import reject_sparse
from bench.engines.whole_loss import Called, StandIn
from results.resolved import EngineDescription

SCHEDULES = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}


class PipelineDescription(EngineDescription, total=False):
    """Entries of this engine alone."""

    gradient_reduction: str | None
    degree: int
    replicas: int
    schedule: str
    microbatches: int
    parameters_per_stage: list[int]


class PipelineEngine:
    """PipelineStage over ``pipeline``, an all-reduce of each stage's gradients over ``data``."""

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        self.spec, self.device = spec, context.device
        self.degree, self.microbatches = spec.options["degree"], spec.options["microbatches"]
        self.replicas = context.world_size // self.degree
        self.index = context.rank % self.degree
        mesh = init_device_mesh(context.device.type, (self.replicas, self.degree), mesh_dim_names=("data", "pipeline"))
        self.group, self.replicas_of_stage = mesh.get_group("pipeline"), mesh.get_group("data")
        reject_sparse("pipeline", module)
        runs = stages.cut(stages.chain_of(module), units, self.degree)
        stages.reject_what_stages_share(module, runs)
        stages.reject_untrained_stage(module, runs)
        module = cast_module(module, spec.precision)
        checkpoint_units(units, spec.checkpointing)
        names = {id(weight): name for name, weight in module.named_parameters()}
        self.kept_by = [
            {names[id(weight)]: (weight.shape, weight.dtype) for weight in nn.ModuleList(run).parameters()}
            for run in runs
        ]
        mine = stages.Stage(runs[self.index], spec.precision, context.device.type)
        self.weights = {names[id(weight)]: weight for weight in mine.parameters()}
        self.buffers = list(mine.buffers())
        self.schedule = self._build_schedule(mine)
        fused = {"fused": True} if spec.optimizer in FUSED else {}
        trained = [weight for weight in self.weights.values() if weight.requires_grad]
        self.optimizer = build_optimizer(spec, trained, hidden_matrices(module), **fused)

    def _build_schedule(self, stage: nn.Module) -> PipelineScheduleSingle:
        return SCHEDULES[self.spec.options["schedule"]](
            PipelineStage(stage, self.index, self.degree, self.device, group=self.group),
            n_microbatches=self.microbatches,
            loss_fn=self._microbatch_loss,
            scale_grads=False,  # the loss is divided instead
        )

    def forward_backward(self, batch: Batch, loss_fn: LossFunction, *, sync: bool) -> Tensor:
        """Every rank of a replica has the batch; the first stage feeds it in, the last one takes the loss."""
        samples = len(tensors_of(batch)[0])
        if samples % self.microbatches:
            raise EngineUnsupported(
                f"engine=pipeline cannot cut a replica's {samples} samples into "
                f"engine.microbatches={self.microbatches} equal parts"
            )
        batch = cast_inputs(batch, weight_dtype(self.spec.precision))
        self.loss_fn, self.parts = loss_fn, cut(batch, self.microbatches)
        losses: list[Tensor] = []
        if self.index == 0:
            self.schedule.step(module_input(loss_fn, batch), return_outputs=False)
        elif self.index == self.degree - 1:
            # A schedule cuts its target like its input. Here the target of a microbatch is its number.
            self.schedule.step(target=torch.arange(self.microbatches), losses=losses, return_outputs=False)
        else:
            self.schedule.step(return_outputs=False)
        if self.replicas > 1:
            average(self.gradients(), self.replicas_of_stage)
        loss = torch.stack(losses).detach().sum().float() if losses else torch.zeros((), device=self.device)
        dist.broadcast(loss, group=self.group, group_src=self.degree - 1)
        return loss

    def _microbatch_loss(self, output: Tensor, number: Tensor) -> Tensor:
        with autocast(self.spec.precision, self.device.type):
            loss: Tensor = self.loss_fn(Computed(output), self.parts[int(number)]) / self.microbatches
        return loss

    def optimizer_step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def gradients(self) -> list[Tensor]:
        return [weight.grad for weight in self.weights.values() if weight.grad is not None]

    def state(self) -> dict[str, list[Tensor]]:
        return kept_state(list(self.weights.values()), self.optimizer, self.buffers)

    def full_state_dict(self) -> dict[str, Tensor]:
        whole = {}
        for index, kept in enumerate(self.kept_by):
            for name, (shape, dtype) in kept.items():
                mine = index == self.index
                value = self.weights[name].detach() if mine else torch.empty(shape, dtype=dtype, device=self.device)
                dist.broadcast(value, group=self.group, group_src=index)
                whole[name] = value
        return whole

    def describe(self) -> PipelineDescription:
        return {
            **describe_muon(self.spec, "each on its stage"),
            "library": f"torch {torch.__version__}",
            "gradient_reduction": "one all-reduce after backward" if self.replicas > 1 else None,
            "degree": self.degree,
            "replicas": self.replicas,
            "schedule": type(self.schedule).__name__,
            "microbatches": self.microbatches,
            "parameters_per_stage": [sum(shape.numel() for shape, _ in kept.values()) for kept in self.kept_by],
        }

    def teardown(self) -> None:
        """Nothing: the process leaves with ``os._exit``."""


def average(gradients: list[Tensor], group: dist.ProcessGroup) -> None:
    """The mean over the group, in place: one all-reduce for each dtype.

    Not DistributedDataParallel: under GPipe its reducer counts the gradients of every microbatch and fails (2.15).
    """
    for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
        chosen = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = torch.cat([gradient.flatten() for gradient in chosen])
        dist.all_reduce(flat, group=group)
        flat /= group.size()
        for gradient, mean in zip(chosen, flat.split([gradient.numel() for gradient in chosen]), strict=True):
            gradient.copy_(mean.view_as(gradient))


class Computed(nn.Module):
    """Stands in for the module once its output is there."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_: Tensor) -> Tensor:
        return self.output


def cut(batch: Batch, parts: int) -> list[Batch]:
    """The batch in so many parts, each with its share of every tensor's samples."""

    def part(number: int) -> Batch:
        return map_tensors(batch, lambda entry: entry.chunk(parts)[number])

    return [part(number) for number in range(parts)]


def module_input(loss_fn: LossFunction, batch: Batch) -> Tensor:
    """The input with which ``loss_fn`` calls the module. Raises EngineUnsupported unless it is one tensor."""
    try:
        loss_fn(StandIn(), batch)
    except Called as call:
        if len(call.args) == 1 and isinstance(call.args[0], Tensor):
            return call.args[0]
    raise EngineUnsupported("engine=pipeline feeds one tensor into its first stage; this workload's model takes others")


def create() -> Engine:
    return PipelineEngine()
