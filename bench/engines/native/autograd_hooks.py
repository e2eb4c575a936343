"""Hooks on tensors that backward reaches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle


def needing_gradients(values: Any) -> list[Tensor]:
    """The tensors in ``values`` (nested tuples, lists, dicts) that backward will reach."""
    leaves = tree_leaves(values) if torch.is_grad_enabled() else []
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]


def when_all_have_gradients(tensors: list[Tensor], action: Callable[[], None]) -> list[RemovableHandle]:
    """Calls ``action`` in each backward, once all of ``tensors`` that it reaches have their gradients.

    torch's ``register_multi_grad_hook`` does the same, but raises for a leaf in ``autograd.grad``; here such leaves are
    not waited for.
    """
    arrivals = _Arrivals([get_gradient_edge(tensor).node for tensor in tensors], action)
    return [
        tensor.register_hook(partial(arrivals.arrive, node))
        for tensor, node in zip(tensors, arrivals.nodes, strict=True)
    ]


class _Arrivals:
    """Counts, by backward, the tensors whose gradients were computed."""

    def __init__(self, nodes: list[Node], action: Callable[[], None]) -> None:
        self.nodes = nodes
        self._action = action
        self._counts: dict[int, int] = {}

    def arrive(self, node: Node, gradient: Tensor) -> None:
        awaited = [other for other in self.nodes if will_run(other)] or [node]
        if node in awaited:
            backward = torch._C._current_graph_task_id()
            self._counts[backward] = self._counts.get(backward, 0) + 1
            if self._counts[backward] == len(awaited):
                self._action()


def will_run(node: Node) -> bool:
    """Whether the current backward executes ``node``; False where torch cannot tell: a leaf in ``autograd.grad``."""
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:
        return False
