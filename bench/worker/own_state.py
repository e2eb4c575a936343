"""What a loss depends on besides its module's parameters and its batch: ranks have it, or have it otherwise.

Ranks and a single process then differ whatever the engine does, so that a failure of parity names it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.engines.base import Batch, LossFunction
from bench.worker.bits import same_bits
from bench.worker.loss_trace import replaced
from workloads.base import WorkloadError

QUERIES = ("is_initialized", "get_rank", "get_world_size")
NormBase = nn.modules.batchnorm._NormBase


class OwnState:
    """Watches the training of ``module`` by a single process, from its first step on."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._buffers = {name: buffer.detach().clone() for name, buffer in may_be_read(module)}
        self._trained = trained(module)
        self._queries: dict[str, None] = {}

    def watching(self, loss_fn: LossFunction) -> LossFunction:
        """``loss_fn``, whose questions to torch.distributed are noted."""

        def watched(module: nn.Module, batch: Batch) -> Tensor:
            with contextlib.ExitStack() as stack:
                for name in QUERIES:
                    stack.enter_context(replaced(dist, name, self._noting(name)))
                return loss_fn(module, batch)

        return watched

    def _noting(self, name: str) -> Callable[..., Any]:
        original: Callable[..., Any] = getattr(dist, name)

        def query(*args: Any, **named: Any) -> Any:
            self._queries[name] = None
            return original(*args, **named)

        return query

    @property
    def queries(self) -> list[str]:
        """Functions of torch.distributed by which the loss asks about ranks."""
        return list(self._queries)

    def check_trained(self, factory: str) -> None:
        """Raises WorkloadError for a loss that changes which weights are trained: engines choose them at setup."""
        names = sorted(self._trained ^ trained(self._module))
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise WorkloadError(
                f"{factory}: training changes requires_grad of {names[0]}{more}, but engines choose at setup which "
                "weights they train; valid: requires_grad as the factory sets it, in every step"
            )

    def buffers(self, loss: Callable[[], Tensor]) -> list[str]:
        """Buffers that training has changed and that ``loss``, of one batch, depends on; by name.

        ``loss`` is computed anew with the values from before, and must draw the same random numbers each time.
        """
        now = dict(self._module.named_buffers())
        changed = [name for name, before in self._buffers.items() if name in now and not unchanged(before, now[name])]
        if not changed:
            return []
        expected = self._loss_with([], loss)
        if same_bits(expected, self._loss_with(changed, loss)) or not same_bits(expected, self._loss_with([], loss)):
            return []  # not read, or the loss is not repeatable
        read = [name for name in changed if not same_bits(expected, self._loss_with([name], loss))]
        return read or changed

    def _loss_with(self, names: list[str], loss: Callable[[], Tensor]) -> Tensor:
        """The loss with these buffers as they were at the start; all are put back."""
        now = {name: buffer for name, buffer in self._module.named_buffers() if name in self._buffers}
        try:
            for name, buffer in now.items():
                value = self._buffers[name].to(buffer.device, buffer.dtype) if name in names else buffer.detach()
                self._put(name, value.clone())
            with torch.no_grad():
                return loss().detach()
        finally:
            for name, buffer in now.items():
                self._put(name, buffer)

    def _put(self, name: str, buffer: Tensor) -> None:
        path, _, own = name.rpartition(".")
        self._module.get_submodule(path)._buffers[own] = buffer


def check_group(factory: str, error: Exception) -> None:
    """Raises WorkloadError if ``error`` is torch's about a process group that a single process does not have."""
    if "process group has not been initialized" in str(error):
        raise WorkloadError(
            f"{factory}: the loss communicates itself (torch.distributed), which a single process cannot; "
            "valid: a loss of the samples of one rank, whose gradients the engine averages over ranks"
        ) from error


def check_synchronized_norms(module: nn.Module, factory: str, device: str) -> None:
    """Raises WorkloadError for SyncBatchNorm on CPUs, which torch implements for GPUs only."""
    names = synchronized_norms(module)
    if names and device == "cpu":
        raise WorkloadError(
            f"{factory}: {names[0]} is a SyncBatchNorm, which torch has for GPUs only; "
            "valid on CPUs: BatchNorm, GroupNorm, LayerNorm"
        )


def synchronized_norms(module: nn.Module) -> list[str]:
    return [name or "the module" for name, part in module.named_modules() if isinstance(part, nn.SyncBatchNorm)]


def may_be_read(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Buffers by name, without running statistics that training only writes."""
    for name, part in module.named_modules():
        if isinstance(part, NormBase) and part.training:
            continue
        for own, buffer in part.named_buffers(recurse=False):
            if buffer.layout is torch.strided and not buffer.is_meta:
                yield f"{name}.{own}".removeprefix("."), buffer


def trained(module: nn.Module) -> set[str]:
    return {name for name, weight in module.named_parameters() if weight.requires_grad}


def unchanged(before: Tensor, now: Tensor) -> bool:
    return same_bits(before, now.detach().to(before.device, before.dtype))
