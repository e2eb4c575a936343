"""A loss that uses more of its module than a call of it, as one module that an engine can wrap and hook.

DistributedDataParallel and fully_shard act in the forward of what they wrap. ``module.encode(x)`` and
``module["e"](x)`` bypass it; in ``WholeLoss`` all of the loss is inside that forward.
"""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor, nn

from bench.engines.base import Batch, LossFunction


class WholeLoss(nn.Module):
    """Its forward is the loss function's, called with ``module``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, loss_fn: LossFunction, batch: Batch) -> Tensor:
        return loss_fn(self.module, batch)


class Called(Exception):
    """The module was called with these inputs."""


class Used(Exception):
    """Something else of the module was used before it was called."""


class StandIn(nn.Module):
    """Stands in for the module to learn what a loss function does with it first."""

    def forward(self, *inputs: Any, **named: Any) -> NoReturn:
        raise Called(*inputs, *named.values())

    def __getattr__(self, name: str) -> NoReturn:
        raise Used(f".{name}")

    def __getitem__(self, key: object) -> NoReturn:
        raise Used(f"[{key!r}]")


def first_use(loss_fn: LossFunction, batch: Batch) -> str:
    """What ``loss_fn`` uses of its module before it calls it, as it is written there (``.encode``); empty if nothing.

    Nothing is computed with the module. A loss that fails by itself uses nothing: it fails again where it is trained.
    """
    try:
        loss_fn(StandIn(), batch)
    except Used as used:
        return str(used)
    except Exception:
        return ""
    return ""
