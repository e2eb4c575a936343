"""The trained model and its data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Parameter:
    """One parameter of the model, in the order of ``module.named_parameters()``."""

    name: str
    shape: list[int]
    requires_grad: bool
    unit: int
    """Index of the sharding unit that owns it; -1 for what is left to the root."""
    dtype: str = "float32"
    """As it was built; bf16 precisions cast it."""
    hidden_matrix: bool = False
    """Whether ``optimizer=muon`` updates it by Muon, and not by AdamW."""


@dataclass(frozen=True)
class ComputeMemory:
    """Bytes in addition to model state that a single process without an engine needs for a micro-batch of one rank.

    Counted at the allocator at the moment of the step when activations, temporaries and handed-over gradients take
    most together.
    """

    activation_bytes: int
    """What forward leaves for backward."""
    temporary_bytes: int
    """What forward and backward compute with: gradients of activations, what the loss makes of logits."""
    handover_bytes: int
    """The gradient of a parameter from its making to its accumulation. Engines copy it into memory of their own."""
    batch_bytes: int
    """The batch: all micro-batches of the step."""


@dataclass(frozen=True)
class StepProperties:
    """Properties of a training step, observed by the single-process reference."""

    skipped: list[str] = field(default_factory=list)
    """Trained parameters that got no gradient in some micro-batch of the parity steps."""
    uneven: list[str] = field(default_factory=list)
    """Those that got one on some ranks and not on others: experts that ranks choose by their samples."""
    differentiates: bool = False
    """Whether the loss is computed from gradients (``create_graph=True``)."""
    used_outside: list[str] = field(default_factory=list)
    """Parameters that the loss uses outside of their unit's forward; those of the root, outside of the module's."""
    used_early: list[str] = field(default_factory=list)
    """Those of them that it uses before that forward."""
    used_bare: list[str] = field(default_factory=list)
    """Parameters that the loss uses outside of any module's forward."""
    in_threads: list[str] = field(default_factory=list)
    """Modules whose forward the loss runs in Python threads other than its own."""
    read_outside: list[str] = field(default_factory=list)
    """Others that it reads there without a gradient: some engines fail at stage 3, with an unrelated error."""
    first_use: str = ""
    """What the loss uses of the module before it calls it, as ``.encode``; empty if nothing."""
    random: bool = False
    """Whether training draws random numbers (dropout, noise)."""
    eval_mode: list[str] = field(default_factory=list)
    """Parts of the module that are trained in eval mode, outermost ones."""
    own_buffers: list[str] = field(default_factory=list)
    """Buffers that forward changes and that the loss depends on: each rank changes its own by its own samples."""
    rank_queries: list[str] = field(default_factory=list)
    """Functions of torch.distributed by which the loss asks about ranks."""
    synchronized_norms: list[str] = field(default_factory=list)
    """SyncBatchNorm layers: their statistics are of all ranks' samples."""


@dataclass(frozen=True)
class Model:
    """The trained model and its data, as counted on the built module."""

    workload: str
    unit: str
    """What one sample is counted in for throughput: ``sample`` or ``token``."""
    units_per_sample: int
    flops_per_unit: float
    """Forward and backward floating-point operations per unit, counted by running one sample."""
    parameters: list[Parameter]
    buffer_bytes: int
    data: str
    synthetic_data: bool
    data_digest: str
    """SHA-256 of the tensors of the first global batch."""
    compute_memory: ComputeMemory | None = None
    """None where a rank has a part of a replica, and where memory was not measured."""
    recomputed_flops_per_unit: float = 0.0
    """What activation checkpointing computes again in backward, counted likewise; not part of ``flops_per_unit``."""
    uncounted_operators: dict[str, int] = field(default_factory=dict)
    """Calls by operator, of those that multiply and have no formula: ``flops_per_unit`` lacks them."""
    step: StepProperties = field(default_factory=StepProperties)
    """What its training step does that engines may not support, or that ranks do otherwise than a single process."""

    def explained(self, failure: str, *, is_apart: bool = True, is_sharded: bool = False) -> str:
        """``failure`` of a launch or of parity, with its likely cause.

        ``is_apart``: ranks may have computed something else than a single process. ``is_sharded``: a rank has a part of
        each parameter outside of the forward of its unit.
        """
        causes = []
        if is_apart:
            causes += [
                (self.step.own_buffers, "changes in forward, and each rank changes its own by its own samples"),
                (self.step.synchronized_norms, "(SyncBatchNorm) uses statistics of all ranks, not of a micro-batch"),
            ]
        if is_sharded:
            where = "outside of the forward of its sharding unit, where a rank has a part of it"
            causes.append((self.step.read_outside, f"is read without a gradient {where}"))
        words = [f"{_listed(names)} {what}" for names, what in causes if names]
        if is_apart and self.step.rank_queries:
            calls = _listed([f"torch.distributed.{name}" for name in self.step.rank_queries])
            words.append(f"the loss calls {calls}, so it may communicate or compute something else on ranks")
        return f"{failure.rstrip('.!')}. Likely cause: {'; '.join(words)}" if words else failure

    @property
    def parameter_count(self) -> int:
        return sum(element_count(parameter.shape) for parameter in self.parameters)

    @property
    def unit_count(self) -> int:
        """Sharding units that have a parameter."""
        return len([unit for unit in self._elements_by_unit() if unit >= 0])

    @property
    def root_share(self) -> float:
        """Part of the parameters that is in no sharding unit, so that stage 3 keeps it whole throughout a step."""
        return self._elements_by_unit().get(-1, 0) / max(1, self.parameter_count)

    @property
    def largest_unit_share(self) -> float:
        """Part of the parameters in the largest sharding unit, which stage 3 keeps whole while it computes."""
        units = [elements for unit, elements in self._elements_by_unit().items() if unit >= 0]
        return max(units, default=0) / max(1, self.parameter_count)

    def _elements_by_unit(self) -> dict[int, int]:
        elements: dict[int, int] = {}
        for parameter in self.parameters:
            elements[parameter.unit] = elements.get(parameter.unit, 0) + element_count(parameter.shape)
        return elements


def _listed(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def element_count(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
