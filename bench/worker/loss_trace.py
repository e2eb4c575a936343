"""How a loss function uses its module beyond a call of it, as seen in the single-process reference.

Engines that shard a module, or hook its forward and backward, cannot follow all of it.

Autograd numbers its nodes in the order in which they are made. A weight is used where a node is made whose gradient
goes to it; whether that was in some module's forward follows from the numbers when this began and ended.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bench.engines.base import Batch, LossFunction
from bench.engines.param_owners import ROOT, holders

Span = tuple[int, int]
"""The first number within a forward, and the first one after it."""
ANYWHERE = -2
"""The place of every module."""


class LossTrace:
    """Watches calls of a loss function with ``module``, whose sharding units are ``units``.

    Weights of scripted modules, which take no hooks, are left out.
    """

    def __init__(self, module: nn.Module, units: list[nn.Module]) -> None:
        self.differentiates = False
        """Whether the loss is computed from gradients (``create_graph=True``), so that backward is of second order."""
        self._names = {id(weight): name for name, weight in module.named_parameters()}
        self._places = holders(module, units)
        self._outside: dict[str, None] = {}
        self._early: dict[str, None] = {}
        self._bare: dict[str, None] = {}
        self._spans: dict[int, list[Span]] = {}
        self._thread = 0
        self._in_threads: dict[str, None] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        for place, part in ((ROOT, module), *enumerate(units), *((ANYWHERE, part) for part in module.modules())):
            self._watch(place, part)
        for name, part in module.named_modules():
            self._watch_threads(name or "the module", part)

    def watching(self, loss_fn: LossFunction) -> LossFunction:
        def watched(module: nn.Module, batch: Batch) -> Tensor:
            self._spans.clear()
            self._thread = threading.get_ident()
            with self._gradients_seen():
                loss = loss_fn(module, batch)
            if not self.differentiates and not self._in_threads:  # each thread counts by itself
                self._note_uses(loss)
            return loss

        return watched

    @property
    def used_outside(self) -> list[str]:
        """Parameters that the loss uses outside of their unit's forward; those of the root, outside of the module's."""
        return list(self._outside)

    @property
    def used_early(self) -> list[str]:
        """Those of them that it uses before that forward."""
        return list(self._early)

    @property
    def used_bare(self) -> list[str]:
        """Parameters that the loss uses outside of any forward."""
        return list(self._bare)

    @property
    def in_threads(self) -> list[str]:
        """Modules whose forward the loss runs in Python threads other than its own."""
        return list(self._in_threads)

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _watch(self, place: int, part: nn.Module) -> None:
        if isinstance(part, torch.jit.ScriptModule):
            for weight in part.parameters():
                self._names.pop(id(weight), None)
            return
        begun: list[int] = []

        def enter(*_: Any) -> None:
            begun.append(next_number())

        def leave(*_: Any) -> None:
            if begun:
                self._spans.setdefault(place, []).append((begun.pop(), next_number()))

        self._handles.append(part.register_forward_pre_hook(enter, prepend=True))
        self._handles.append(part.register_forward_hook(leave, always_call=True))

    def _watch_threads(self, name: str, part: nn.Module) -> None:
        if isinstance(part, torch.jit.ScriptModule):
            return

        def enter(*_: Any) -> None:
            if threading.get_ident() != self._thread:
                self._in_threads[name] = None

        self._handles.append(part.register_forward_pre_hook(enter, prepend=True))

    def _note_uses(self, loss: Tensor) -> None:
        for weight, number in uses(loss):
            name = self._names.get(id(weight))
            if name is None:
                continue
            places = self._places[id(weight)]
            if not any(self._is_within(place, number) for place in places):
                self._outside[name] = None
                begins = [begin for place in places for begin, _ in self._spans.get(place, [])]
                if number < min(begins, default=number + 1):
                    self._early[name] = None
            if not self._is_within(ANYWHERE, number):
                self._bare[name] = None

    def _is_within(self, place: int, number: int) -> bool:
        return any(begin <= number < end for begin, end in self._spans.get(place, []))

    @contextlib.contextmanager
    def _gradients_seen(self) -> Iterator[None]:
        original = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

        def run(outputs: Any, gradients: Any, retain_graph: bool, create_graph: bool, *rest: Any, **named: Any) -> Any:
            self.differentiates = self.differentiates or create_graph
            return original(outputs, gradients, retain_graph, create_graph, *rest, **named)

        with replaced(torch.autograd, "_engine_run_backward", run):
            yield


def next_number() -> int:
    """Of the next node that autograd makes in this thread."""
    number: int = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
    return number


def uses(loss: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Each tensor that backward of ``loss`` leaves a gradient in, with the number of a node that uses it."""
    left: list[Any] = [loss.grad_fn] if loss.grad_fn else []
    seen = set(left)
    while left:
        node = left.pop()
        for source, _ in node.next_functions:
            if source is None:
                continue
            if hasattr(source, "variable"):
                yield source.variable, node._sequence_nr()
            elif source not in seen:
                seen.add(source)
                left.append(source)


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Callable[..., Any]) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
