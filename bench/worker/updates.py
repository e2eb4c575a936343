"""Whether a rank's steps updated its weights, learned before and after them: nothing is added to a step.

Loss scaling begins high and skips updates until no gradient overflows; steps are measured once it has settled.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from bench.engines.base import Engine
from bench.engines.offload import host_state
from bench.engines.scaling import LossScaling
from bench.worker.bits import bits_sum
from results.updates import Updates

SETTLED_STEPS = 2
"""Updates in a row without a skip, after which the loss scale has settled."""
MAX_SETTLING = 48
"""Steps in which the loss scale can settle: enough for it to fall from 2^16 to 2^-32."""


class UpdateWatch:
    """Watches the updates of the steps from its construction to ``result``. Not collective."""

    def __init__(self, engine: Engine, settling: int = 0) -> None:
        self._engine = engine
        self._settling = settling
        self._scaling = scaling(engine)
        self._weights = fingerprint(engine)

    def result(self, steps: int) -> Updates:
        skipped = scaling_skips(self._scaling, scaling(self._engine), steps)
        return Updates(steps, skipped, self._settling, fingerprint(self._engine) != self._weights)


def scaling(engine: Engine) -> LossScaling | None:
    """Where the engine's loss scaling stands; None if it does not scale the loss, or does not say."""
    read: Callable[[], LossScaling | None] | None = getattr(engine, "loss_scaling", None)
    return read() if read else None


def scaling_skips(before: LossScaling | None, after: LossScaling | None, steps: int) -> int:
    return after.skipped_since(before, steps) if before and after else 0


def settle(engine: Engine, device: torch.device, step: Callable[[int], object]) -> int:
    """Takes steps (numbered from 0) until the loss scale has settled on all ranks, and counts them. Collective."""
    taken = 0
    while taken < MAX_SETTLING and (now := scaling(engine)) and on_any_rank(now.good_steps < SETTLED_STEPS, device):
        step(taken)
        taken += 1
    return taken


def is_updated(engine: Engine, device: torch.device, step: Callable[[], object]) -> bool:
    """Takes a step; whether its update was skipped on no rank. Collective where the loss is scaled."""
    before = scaling(engine)
    step()
    return before is None or not on_any_rank(scaling_skips(before, scaling(engine), 1) > 0, device)


def on_any_rank(is_so: bool, device: torch.device) -> bool:
    flag = torch.tensor(int(is_so), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def fingerprint(engine: Engine) -> list[int]:
    """The bits of each weight tensor that the engine keeps on this rank or its host, summed up; not of second copies,
    which change in the step after an update."""
    states = (engine.state(), host_state(engine))
    weights = [tensor for state in states for kind in ("params", "master") for tensor in state.get(kind, [])]
    copied = copies(engine)
    return [bits_sum(weight) for weight in weights if not any(weight is copy for copy in copied)]


def copies(engine: Engine) -> list[Tensor]:
    """The tensors of the engine's state that are second copies of weights; none of an engine that keeps none."""
    read: Callable[[], list[Tensor]] | None = getattr(engine, "copies", None)
    return read() if read else []
