"""Stages 0 and 1: DistributedDataParallel and what its communication hooks and Join make of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import PostLocalSGDState, post_localSGD_hook
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.distributed.algorithms.join import Join, Joinable, JoinHook
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from bench.engines.compiler import compiled
from bench.engines.muon import describe_muon
from bench.engines.spec import EngineSpec, EngineUnsupported
from bench.engines.whole_loss import WholeLoss
from results.resolved import EngineDescription

MIB = 1 << 20


def replicate(module: nn.Module, spec: EngineSpec, device: torch.device) -> DistributedDataParallel:
    """The loss of ``module`` under DDP; the module is compiled if ``spec`` asks for that."""
    cap_mb = one_bucket_mb(module) if spec.compression == "powersgd" else spec.bucket_mb
    own: dict[str, Any] = {} if cap_mb is None else {"bucket_cap_mb": cap_mb}
    if spec.local_steps > 1:
        own["broadcast_buffers"] = False
    if spec.compile:
        # DDPOptimizer cuts the graph at the buckets, since it is made within DDP's forward; backward can then overlap.
        # Not ddp.compile(): that gives up in DDP's forward, and then leaves alone what lies in torch.nn (Sequential).
        module.forward = compiled(f"engine=torch at stage={spec.stage}", module.forward)
    return DistributedDataParallel(
        WholeLoss(module),
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=spec.options["gradient_as_bucket_view"],
        static_graph=spec.options["static_graph"],
        find_unused_parameters=spec.options["find_unused_parameters"],
        **own,
    )


def bucket_sizes_mb(cap_mb: float | None) -> tuple[float, float]:
    """The size of DDP's buckets and of its first one, by its ``bucket_cap_mb``; None: its own sizes."""
    return (25.0, 1.0) if cap_mb is None else (cap_mb, cap_mb)


REDUCE_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}
"""By compression."""


def unused_message(stage: int, names: str = "some parameters") -> str:
    """The message about parameters that got no gradient."""
    return (
        f"engine=torch at stage={stage}: {names} got no gradient in a micro-batch, and DistributedDataParallel waits "
        "for all; valid: engine.find_unused_parameters=true, engine=native"
    )


def one_bucket_mb(module: nn.Module) -> float:
    """A cap that all gradients fit in. DDP never puts two dtypes in one bucket."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    reject_several_dtypes(weights, "compression=powersgd", "it needs a single bucket")
    return 1 + sum(weight.nbytes for weight in weights) / MIB


def reject_several_dtypes(weights: list[nn.Parameter], what: str, why: str) -> None:
    """Raises EngineUnsupported."""
    dtypes = sorted({str(weight.dtype).removeprefix("torch.") for weight in weights})
    if len(dtypes) > 1:
        raise EngineUnsupported(f"engine=torch has no {what} for a module of {' and '.join(dtypes)}: {why}")


Hook = tuple[Any, Any]
"""A communication hook's state and the hook."""


def communication_hook(spec: EngineSpec) -> Hook | None:
    """The communication hook that reduces gradients; None for DDP's own all-reduce."""
    if spec.compression == "bf16":
        return None, default_hooks.bf16_compress_hook
    if spec.compression == "fp16":
        return None, default_hooks.fp16_compress_hook
    if spec.compression == "powersgd":
        state = PowerSGDState(
            process_group=None,
            matrix_approximation_rank=spec.options["powersgd_rank"],
            start_powerSGD_iter=2,  # the least that it allows: DDP rebuilds its buckets after the first step
            orthogonalization_epsilon=1e-8,  # else a gradient of zeros becomes 0/0
        )
        return state, powerSGD_hook
    if spec.local_steps > 1:
        alone = PostLocalSGDState(
            process_group=None, subgroup=None, start_localSGD_iter=0, post_local_gradient_allreduce=False
        )
        return alone, post_localSGD_hook
    return None


def kept_by(state: Any) -> list[Tensor]:
    """The tensors that a hook's state keeps from step to step: PowerSGD's unsent error and its factors."""
    if not isinstance(state, PowerSGDState):
        return []
    return [entry for kept in (state.error_dict, state.p_memory_dict, state.q_memory_dict) for entry in kept.values()]


class ShadowGradients(Joinable):
    """Gives ZeroRedundancyOptimizer the gradients that it steps on once this rank has run out of batches.

    Join lets such a rank answer DDP's reductions with zeros and then step, since its shard of the weights is needed.
    But DDP drops the result of those reductions, and the optimizer's documentation leaves setting ``grad`` to the
    user. This stands between the two: it is DDP's communication hook and, as a Joinable, runs after DDP and before
    the optimizer.
    """

    def __init__(self, ddp: DistributedDataParallel, hook: Hook | None) -> None:
        super().__init__()
        self._ddp = ddp
        self._hook: Hook = hook or (None, default_hooks.allreduce_hook)
        self._reduced: list[tuple[Tensor, Tensor]] = []
        self.out_of_batches = False
        # A lambda: DDP compares a hook's annotations with classes, and ours are strings.
        ddp.register_comm_hook(None, lambda _, bucket: self._reduce(bucket))

    def _reduce(self, bucket: Any) -> torch.futures.Future[Tensor]:
        if self.out_of_batches:
            self._reduced += zip(bucket.parameters(), bucket.gradients(), strict=True)
        state, hook = self._hook
        future: torch.futures.Future[Tensor] = hook(state, bucket)
        return future

    def set_gradients(self) -> None:
        for weight, gradient in self._reduced:
            weight.grad = gradient
        self._reduced.clear()

    def drop_gradients(self) -> None:
        self._ddp.zero_grad()

    def join_hook(self, **_: Any) -> JoinHook:
        return _ShadowHook(self)

    @property
    def join_device(self) -> torch.device:
        device: torch.device = self._ddp.join_device
        return device

    @property
    def join_process_group(self) -> Any:
        return self._ddp.join_process_group


class _ShadowHook(JoinHook):
    def __init__(self, shadow: ShadowGradients) -> None:
        self._shadow = shadow

    def main_hook(self) -> None:
        self._shadow.set_gradients()

    def post_hook(self, is_last_joiner: bool) -> None:
        self._shadow.drop_gradients()


@contextlib.contextmanager
def joined(
    ddp: DistributedDataParallel, shadow: ShadowGradients | None, optimizer: torch.optim.Optimizer
) -> Iterator[None]:
    """torch's Join over what communicates: DDP and, at stage 1, its sharded optimizer.

    At stage 0 that is all that torch has: a rank that has run out is given the others' weights in the end, but its
    optimizer has missed their steps.
    """
    if shadow is None:
        with Join([ddp]):
            yield
        return
    assert isinstance(optimizer, ZeroRedundancyOptimizer)
    try:
        with Join([ddp, shadow, optimizer]):
            yield
            shadow.out_of_batches = True  # from here on this rank only answers the others
    finally:
        shadow.out_of_batches = False


class ReplicatedDescription(EngineDescription, total=False):
    """Entries of DistributedDataParallel."""

    compile: str | None
    first_bucket_mb: float
    gradient_as_bucket_view: bool
    static_graph: bool
    find_unused_parameters: bool | None
    communication_hook: str | None
    average_weights_every_steps: int


def describe(ddp: DistributedDataParallel, spec: EngineSpec, hook: Hook | None) -> ReplicatedDescription:
    """The settings that took effect."""
    cap_mb = one_bucket_mb(ddp.module) if spec.compression == "powersgd" else spec.bucket_mb
    bucket_mb, first_bucket_mb = bucket_sizes_mb(cap_mb)
    described: ReplicatedDescription = {
        "library": f"torch {torch.__version__}",
        "overlap": True,
        "wrapper": "DistributedDataParallel",
        "bucket_mb": bucket_mb,
        "first_bucket_mb": first_bucket_mb,
        "gradient_as_bucket_view": ddp.gradient_as_bucket_view,
        "static_graph": ddp.static_graph,
        "find_unused_parameters": True if ddp.find_unused_parameters else None,
        "communication_hook": hook[1].__name__ if hook else None,
    }
    if muon := describe_muon(spec, "each on one rank" if spec.stage else "on every rank").get("muon"):
        described["muon"] = muon
    if spec.compression in REDUCE_DTYPES:
        described["reduce_dtype"] = REDUCE_DTYPES[spec.compression]
    if spec.local_steps > 1:
        described["average_weights_every_steps"] = spec.local_steps
    return described
