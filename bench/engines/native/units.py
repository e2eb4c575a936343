"""Stage 3: which bucket is whole when.

A group is what is gathered and freed together: the buckets of one unit, or of several small units in a row where the
bucket size asks for it. Parameters of no unit, or of several, form the root group. Hooks on the modules drive it:

    before a module's forward            gather its group, start gathering the next one
    after the group's last module        free it
    before backward reaches the output   gather it again, start gathering the one that came next last time
    all gradients of a bucket are there  free it (``gradients.py`` calls ``Bucket.free``)
    backward has left the group's input  free its frozen buckets, which get no gradients

So no more is whole than the group that computes, the one that is on its way, and the root; where backward passes from
a group with frozen buckets to the next, those too. A module that is called twice, or again in backward (activation
checkpointing), finds its group whole or gathers it once more. A parameter that is needed where none of this tells of
it is gathered then (``param_access.py``); one that was read outside its unit stays until backward has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge, register_multi_grad_hook
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from bench.engines.native.bucket import Bucket
from bench.engines.native.p2p_thread import Finish
from bench.engines.native.param_access import Reach
from bench.engines.param_owners import holders
from bench.engines.spec import EngineUnsupported


class Group:
    """Buckets that are gathered and freed together, for the modules that use them."""

    def __init__(self, name: str, modules: list[nn.Module], buckets: list[Bucket]) -> None:
        self.name = name
        self.modules = modules
        self.buckets = buckets
        self.frozen = [bucket for bucket in buckets if not bucket.trainable]
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

    def in_use(self, in_use: bool) -> None:
        """Whether one of the modules is in its forward."""
        for bucket in self.buckets:
            bucket.in_use = in_use

    def take_back(self) -> None:
        for bucket in self.buckets:
            bucket.take_back()

    def free(self) -> None:
        if self._coming:
            self.gather()
        for bucket in self.buckets:
            bucket.free()


Phase = Literal["forward", "backward"]


class UnitSchedule:
    """Gathers and frees the groups of a module as forward and backward pass through it."""

    def __init__(self, module: nn.Module, groups: list[Group], *, prefetch: bool) -> None:
        """Raises EngineUnsupported for a unit that takes no hooks."""
        self.groups = groups
        self._prefetch = prefetch
        self._phase: Phase | None = None
        self._running = dict.fromkeys(groups, 0)
        self._entered = dict.fromkeys(groups, 0)
        self._kept: set[Group] = set()
        self._uses: list[Group] = []
        self._last_uses: dict[Phase, list[Group]] = {}
        self._home = {bucket: group for group in groups for bucket in group.buckets}
        self._buckets = list(self._home)
        self._hooks: list[RemovableHandle] = []
        self._reach = Reach(module, self._buckets, self._need)
        for group in groups:
            for part in group.modules:
                if isinstance(part, torch.jit.ScriptModule):
                    raise EngineUnsupported(
                        f"engine=native at stage=3: {group.name} is a scripted module, which takes no hooks; "
                        "valid: a module around it, stage=0, 1, 2"
                    )
                part.register_forward_pre_hook(self._before_forward(group), prepend=True, with_kwargs=True)
                part.register_forward_hook(self._after_forward(group))
            group.free()

    @contextmanager
    def passing(self, phase: Phase) -> Iterator[None]:
        """Context of a micro-batch's forward and loss, or of its backward. At its end no more is whole than is kept:
        in forward what was read outside or returned, after backward nothing."""
        self._phase, self._uses = phase, []
        for group in self.groups:
            self._running[group] = self._entered[group] = 0
            group.in_use(False)
        with self._reach.saved_weights():
            yield
        self._last_uses[phase] = self._uses
        self._phase = None
        if phase == "backward":
            self._kept.clear()
            while self._hooks:  # on leaves they would be there for good, with the graphs that they refer to
                self._hooks.pop().remove()
        for group in self.groups:
            if phase == "forward":
                group.take_back()
            if group not in self._kept:
                group.free()

    def _use(self, group: Group) -> None:
        earlier = self._last_uses.get(self._phase) if self._phase else []
        if earlier is None:
            self._agree(group, self.groups.index(group))
            earlier = []
        group.gather()
        if not self._uses or self._uses[-1] is not group:
            self._uses.append(group)
        position = len(self._uses)
        if self._prefetch and position < len(earlier) and earlier[position - 1] is group:
            earlier[position].start()

    def agree_on_reduction(self, bucket: Bucket) -> None:
        """In the first step: that all ranks reduce ``bucket`` now, between the same two gathers."""
        if self._phase not in self._last_uses:
            self._agree(self._home[bucket], len(self.groups) + self._buckets.index(bucket))

    def _agree(self, group: Group, number: int) -> None:
        """In the first step: that all ranks are at the ``number``-th thing now. Later ones are not held up by this.

        Raises EngineUnsupported, where ranks would else exchange different buckets or wait for each other for good.
        """
        ends = torch.tensor([number, -number], device=group.buckets[0].whole.device)
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        if ends.sum():
            raise EngineUnsupported(
                f"engine=native at stage=3: ranks use units in different orders (here {group.name} is next); "
                "valid: units of which every rank calls the same, whatever its samples; stage=0, 1, 2"
            )

    def _need(self, bucket: Bucket, outside: bool) -> None:
        """A parameter of ``bucket`` is needed now; if read ``outside`` its unit, nobody knows for how long."""
        if self._phase:
            group = self._home[bucket]
            if not bucket.is_whole:
                self._use(group)
            if outside:
                self._kept.add(group)

    def _before_forward(self, group: Group) -> Callable[[nn.Module, Any, Any], None]:
        def gather(module: nn.Module, inputs: Any, named_inputs: Any) -> None:
            self._running[group] += 1
            group.in_use(True)
            self._use(group)
            entering = needing_gradients((inputs, named_inputs)) if group.frozen and module is group.modules[0] else []
            if entering:
                self._hooks += when_gradients_are_there(entering, lambda: self._leave(group))

        return gather

    def _after_forward(self, group: Group) -> Callable[[nn.Module, Any, Any], None]:
        def watch_and_free(module: nn.Module, inputs: Any, output: Any) -> None:
            returned = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
            leaving = needing_gradients(returned)
            if leaving:
                self._hooks.append(register_multi_grad_hook(leaving, lambda _: self._enter(group), mode="any"))
            self._kept.update(self._home[bucket] for leaf in returned if (bucket := self._reach.bucket_of(leaf)))
            self._running[group] -= 1
            if self._running[group] > 0:
                return
            group.in_use(False)
            if self._phase != "backward" and module is group.modules[-1] and group not in self._kept:
                group.take_back()
                group.free()

        return watch_and_free

    def _enter(self, group: Group) -> None:
        """Backward comes to a call of the group."""
        self._entered[group] += 1
        self._use(group)

    def _leave(self, group: Group) -> None:
        """Backward has left a call of the group; another one may have been entered before."""
        self._entered[group] -= 1
        if self._entered[group] <= 0 and group not in self._kept:
            for bucket in group.frozen:
                bucket.free()


def when_gradients_are_there(tensors: list[Tensor], act: Callable[[], None]) -> list[RemovableHandle]:
    """Calls ``act`` in each backward, once all of ``tensors`` that it reaches have their gradients.

    As torch's ``register_multi_grad_hook``, which raises for a leaf in ``autograd.grad``: leaves are not waited for
    there.
    """
    nodes = [get_gradient_edge(tensor).node for tensor in tensors]
    arrived: dict[int, int] = {}

    def hook(node: Node) -> Callable[[Tensor], None]:
        def arrive(gradient: Tensor) -> None:
            awaited = [other for other in nodes if will_run(other)] or [node]
            if node in awaited:
                backward = torch._C._current_graph_task_id()
                arrived[backward] = arrived.get(backward, 0) + 1
                if arrived[backward] == len(awaited):
                    act()

        return arrive

    return [tensor.register_hook(hook(node)) for tensor, node in zip(tensors, nodes, strict=True)]


def will_run(node: Node) -> bool:
    """Whether the backward that runs now comes by ``node``; False where torch does not say: a leaf in autograd.grad."""
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:
        return False


def needing_gradients(held: Any) -> list[Tensor]:
    """The tensors in ``held`` that backward will reach."""
    leaves = tree_leaves(held) if torch.is_grad_enabled() else []
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]


def group_units(
    module: nn.Module, units: list[nn.Module], cap_bytes: float | None
) -> list[tuple[list[nn.Module], list[nn.Parameter]]]:
    """Modules and parameters of each group, in the order of forward; the last one is the root's.

    Units in a row are merged while they stay within ``cap_bytes``; None keeps each apart. A parameter that is also
    held outside its unit, or by another one (tied weights, a module in two units), belongs to the root, which is
    whole throughout.
    """
    held = holders(module, units)
    found: list[tuple[list[nn.Module], list[nn.Parameter]]] = []
    taken: set[int] = set()
    size = 0.0
    for place, unit in enumerate(units):
        own = [parameter for parameter in unit.parameters() if held[id(parameter)] == {place}]
        taken.update(map(id, own))
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
