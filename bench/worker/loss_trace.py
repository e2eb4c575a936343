"""How a loss function uses its module beyond a call of it, as seen in the single-process reference.

Engines that shard a module, or hook its forward and backward, cannot follow all of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bench.engines.base import Batch, LossFunction


class LossTrace:
    """Watches calls of a loss function with ``module``."""

    def __init__(self, module: nn.Module) -> None:
        self.differentiates = False
        """Whether the loss is computed from gradients (``create_graph=True``), so that backward is of second order."""
        self._names = {id(weight): name for name, weight in module.named_parameters()}
        self._read_late: dict[str, None] = {}
        self._depth = self._calls = 0
        self._handles = [
            module.register_forward_pre_hook(self._enter),
            module.register_forward_hook(self._leave, always_call=True),
        ]

    def watching(self, loss_fn: LossFunction) -> LossFunction:
        def watched(module: nn.Module, batch: Batch) -> Tensor:
            self._calls = 0
            with self._parameters_seen(), self._gradients_seen():
                return loss_fn(module, batch)

        return watched

    @property
    def read_late(self) -> list[str]:
        """Parameters that the loss reads outside of a call of the module, after one."""
        return list(self._read_late)

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _enter(self, *_: Any) -> None:
        self._depth += 1

    def _leave(self, *_: Any) -> None:
        self._depth -= 1
        self._calls += 1

    @contextlib.contextmanager
    def _parameters_seen(self) -> Iterator[None]:
        """Modules keep parameters out of their own attributes, so that reading one arrives in ``__getattr__``."""
        original = nn.Module.__getattr__

        def read(module: nn.Module, name: str) -> Any:
            value = original(module, name)
            if self._calls and not self._depth and id(value) in self._names:
                self._read_late[self._names[id(value)]] = None
            return value

        with replaced(nn.Module, "__getattr__", read):
            yield

    @contextlib.contextmanager
    def _gradients_seen(self) -> Iterator[None]:
        original = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

        def run(outputs: Any, gradients: Any, retain_graph: bool, create_graph: bool, *rest: Any, **named: Any) -> Any:
            self.differentiates = self.differentiates or create_graph
            return original(outputs, gradients, retain_graph, create_graph, *rest, **named)

        with replaced(torch.autograd, "_engine_run_backward", run):
            yield


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Callable[..., Any]) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
