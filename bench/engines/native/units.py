"""Stage 3: which bucket is whole when.

A group is what is gathered and freed together: the buckets of one unit, or of several small units in a row where the
bucket size asks for it. Parameters of no unit form the root group. Hooks on the modules drive it:

    before a module's forward            gather its group, start gathering the next one
    after the group's last module        free it
    before backward reaches the output   gather it again, start gathering the one that came next last time
    all gradients of a bucket are there  free it (``gradients.py`` calls ``Bucket.free``)

So no more is whole than the group that computes, the one that is on its way, and the root. A module that is called
twice, or again in backward (activation checkpointing), finds its group whole or gathers it once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook
from torch.utils._pytree import tree_leaves

from bench.engines.native.bucket import Bucket
from bench.engines.native.wire import Finish


class Group:
    """Buckets that are gathered and freed together, for the modules that use them."""

    def __init__(self, modules: list[nn.Module], buckets: list[Bucket]) -> None:
        self.modules = modules
        self.buckets = buckets
        self._coming: list[Finish] = []

    def start(self) -> None:
        """Starts to gather what is not whole and not on its way."""
        if not self._coming:
            self._coming = [bucket.start_gather() for bucket in self.buckets if not bucket.is_whole]

    def gather(self) -> None:
        """Makes the parameters usable."""
        self.start()
        for finish in self._coming:
            finish()
        self._coming = []

    def free(self) -> None:
        if self._coming:
            self.gather()
        for bucket in self.buckets:
            if bucket.is_whole:
                bucket.free()


class UnitSchedule:
    """Gathers and frees the groups of a module as forward and backward pass through it."""

    def __init__(self, groups: list[Group], *, prefetch: bool) -> None:
        self.groups = groups
        self._prefetch = prefetch
        self._in_backward = False
        self._running: dict[Group, int] = dict.fromkeys(groups, 0)
        self._uses: list[Group] = []
        self._last_uses: dict[bool, list[Group]] = {False: [], True: []}
        for group in groups:
            for module in group.modules:
                module.register_forward_pre_hook(self._before_forward(group), prepend=True)
                module.register_forward_hook(self._after_forward(group, module), always_call=False)
            group.free()

    def begin_forward(self) -> None:
        self._in_backward = False
        self._uses = []

    def begin_backward(self) -> None:
        self._last_uses[False] = self._uses
        self._in_backward = True
        self._uses = []

    def end_backward(self) -> None:
        """Frees what backward left whole: frozen groups, and those that it did not reach."""
        self._last_uses[True] = self._uses
        self._in_backward = False
        for group in self.groups:
            group.free()

    def _use(self, group: Group) -> None:
        group.gather()
        if not self._uses or self._uses[-1] is not group:
            self._uses.append(group)
        position = len(self._uses)
        earlier = self._last_uses[self._in_backward]
        if self._prefetch and position < len(earlier) and earlier[position - 1] is group:
            earlier[position].start()

    def _before_forward(self, group: Group) -> Callable[[nn.Module, Any], None]:
        def gather(module: nn.Module, inputs: Any) -> None:
            self._running[group] += 1
            self._use(group)

        return gather

    def _after_forward(self, group: Group, owner: nn.Module) -> Callable[[nn.Module, Any, Any], None]:
        def watch_and_free(module: nn.Module, inputs: Any, output: Any) -> None:
            self._running[group] -= 1
            watched = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.requires_grad]
            if torch.is_grad_enabled() and watched:
                register_multi_grad_hook(watched, lambda _: self._use(group), mode="any")
            if not self._in_backward and owner is group.modules[-1] and not self._running[group]:
                group.free()

        return watch_and_free


def group_units(
    module: nn.Module, units: list[nn.Module], cap_bytes: float | None
) -> list[tuple[list[nn.Module], list[nn.Parameter]]]:
    """Modules and parameters of each group, in the order of forward; the last one is the root's.

    Units in a row are merged while they stay within ``cap_bytes``; None keeps each apart. A parameter that is also
    used outside its unit (tied weights) belongs to the root, which is whole throughout.
    """
    inside = [{id(part) for part in unit.modules()} for unit in units]
    found: list[tuple[list[nn.Module], list[nn.Parameter]]] = []
    taken: set[int] = set()
    size = 0.0
    for position, unit in enumerate(units):
        own = []
        for parameter in unit.parameters():
            shared = any(
                parameter is held and id(part) not in inside[position]
                for part in module.modules()
                for held in part._parameters.values()
            )
            if not shared and id(parameter) not in taken:
                taken.add(id(parameter))
                own.append(parameter)
        bytes_ = sum(parameter.nbytes for parameter in own)
        if found and cap_bytes is not None and size + bytes_ <= cap_bytes:
            found[-1][0].append(unit)
            found[-1][1].extend(own)
            size += bytes_
        elif own:
            found.append(([unit], own))
            size = bytes_
    root = [parameter for parameter in module.parameters() if id(parameter) not in taken]
    return [*found, ([module], root)] if root else found
