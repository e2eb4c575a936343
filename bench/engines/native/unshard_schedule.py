"""When parameters are unsharded and resharded.

``UnshardSchedule`` is for sharded parameters. Hooks on the modules drive it, under FSDP2's names:

    pre-forward of a module         unshard its group, start to unshard the next one
    post-forward of the last one    reshard the group
    pre-backward, at the output     unshard the group, start to unshard the one that came next in the last step
    bucket's gradients complete     reshard the bucket
    post-backward, at the input     reshard the group's frozen buckets, which get no gradients

So no more is unsharded than the group that computes, the group in flight, and the root; where backward passes from a
group with frozen buckets to the next, those too. A module that is called twice, or again in backward (activation
checkpointing), is still unsharded or is unsharded again. A parameter that is needed when none of these hooks runs is
unsharded at that time (``param_access.py``); one that was read outside its unit stays unsharded until backward ends.

``AlwaysUnsharded`` is for parameters that are not sharded.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from bench.engines.native.autograd_hooks import needing_gradients, when_all_have_gradients
from bench.engines.native.bucket import Bucket
from bench.engines.native.param_access import ParamAccess
from bench.engines.native.param_group import ParamGroup
from bench.engines.spec import EngineUnsupported

Phase = Literal["forward", "backward"]


class Schedule(Protocol):
    """When parameters are unsharded and resharded within a micro-batch."""

    def phase(self, phase: Phase) -> AbstractContextManager[None]:
        """Context of a micro-batch's forward and loss, or of its backward."""
        ...

    def recomputing(self, unit: nn.Module) -> AbstractContextManager[None]:
        """Context in which backward computes the forward of ``unit`` again (activation checkpointing)."""
        ...

    def bucket_complete(self, bucket: Bucket) -> None:
        """All gradients of ``bucket`` were computed."""
        ...

    def before_reduction(self, bucket: Bucket) -> None:
        """The reduction of ``bucket`` is about to start."""
        ...


class AlwaysUnsharded:
    """Parameters that are not sharded: what forward writes to them is kept, and nothing else happens."""

    def __init__(self, groups: list[ParamGroup]) -> None:
        self.groups = groups

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        yield
        if phase == "forward":
            for group in self.groups:
                group.save_writes()

    def recomputing(self, unit: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def bucket_complete(self, bucket: Bucket) -> None:
        pass

    def before_reduction(self, bucket: Bucket) -> None:
        pass


class UnshardSchedule:
    """Unshards and reshards the groups of a module as forward and backward pass through it."""

    def __init__(self, module: nn.Module, groups: list[ParamGroup], *, prefetch: bool) -> None:
        """Raises EngineUnsupported for a unit that takes no hooks."""
        self.groups = groups
        self._prefetch = prefetch
        self._phase: Phase | None = None
        self._thread = 0
        """The one that runs forward; backward may run in threads of autograd's."""
        self._in_other_thread: EngineUnsupported | None = None
        self._forward_calls = dict.fromkeys(groups, 0)
        """Calls of each group's modules whose forward has not returned."""
        self._backward_calls = dict.fromkeys(groups, 0)
        """Calls that backward has reached and not left."""
        self._kept: set[ParamGroup] = set()
        """Groups that stay unsharded until backward ends."""
        self._order: list[ParamGroup] = []
        """Groups in the order in which this phase unsharded them."""
        self._last_order: dict[Phase, list[ParamGroup]] = {}
        self._group_of = {bucket: group for group in groups for bucket in group.buckets}
        self._buckets = list(self._group_of)
        self._group_of_unit = {module: group for group in groups for module in group.modules}
        self._hooks: list[RemovableHandle] = []
        self._access = ParamAccess(module, self._buckets, self._on_access)
        for group in groups:
            for part in group.modules:
                if isinstance(part, torch.jit.ScriptModule):
                    raise EngineUnsupported(
                        f"engine=native at stage=3: {group.name} is a scripted module, which takes no hooks; "
                        "valid: a module around it, stage=0, 1, 2"
                    )
                self._register_hooks(group, part)
            group.reshard()

    def _register_hooks(self, group: ParamGroup, module: nn.Module) -> None:
        """Registers functions: a deep copy of a module shares its hooks, but copies a ``partial`` and its arguments."""
        module.register_forward_pre_hook(lambda *call: self._pre_forward(group, *call), prepend=True, with_kwargs=True)
        module.register_forward_hook(lambda *call: self._post_forward(group, *call))

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Context of a micro-batch's forward and loss, or of its backward.

        At its end all groups are resharded, except, after forward, those that were read outside or returned.
        """
        self._phase, self._order, self._thread = phase, [], threading.get_ident()
        for group in self.groups:
            self._forward_calls[group] = self._backward_calls[group] = 0
            group.set_in_forward(False)
        try:
            with self._access.saved_weights():
                yield
        finally:
            if self._in_other_thread:  # that thread may have kept the error to itself
                raise self._in_other_thread
        self._last_order[phase] = self._order
        self._phase = None
        if phase == "backward":
            self._kept.clear()
            while self._hooks:  # on leaves they would stay, with the graphs that they refer to
                self._hooks.pop().remove()
        for group in self.groups:
            if phase == "forward":
                group.save_writes()
            if group not in self._kept:
                group.reshard()

    @contextmanager
    def recomputing(self, unit: nn.Module) -> Iterator[None]:
        """No hook of ``unit`` runs: its group counts as in forward, so that reads of its parameters are its own."""
        group = self._group_of_unit.get(unit)  # None: its parameters are tied, and the root's
        if group is None:
            yield
            return
        self._unshard(group)
        group.set_in_forward(True)
        try:
            yield
        finally:
            group.set_in_forward(self._forward_calls[group] > 0)

    def bucket_complete(self, bucket: Bucket) -> None:
        bucket.reshard()

    def before_reduction(self, bucket: Bucket) -> None:
        """In the first step: checks that all ranks reduce ``bucket`` now, between the same two unshards."""
        if self._phase not in self._last_order:
            self._check_order(self._group_of[bucket], len(self.groups) + self._buckets.index(bucket))

    def _unshard(self, group: ParamGroup) -> None:
        self._check_thread(group)
        last_order = self._last_order.get(self._phase) if self._phase else []
        if last_order is None:
            self._check_order(group, self.groups.index(group))
            last_order = []
        group.unshard()
        if not self._order or self._order[-1] is not group:
            self._order.append(group)
        position = len(self._order)
        if self._prefetch and position < len(last_order) and last_order[position - 1] is group:
            last_order[position].start_unshard()

    def _check_thread(self, group: ParamGroup) -> None:
        """Raises EngineUnsupported in forward, in a thread that may issue collectives between any two of the others."""
        if self._phase == "forward" and threading.get_ident() != self._thread:
            self._in_other_thread = EngineUnsupported(
                f"engine=native at stage=3: the loss uses {group.name} in a Python thread other than its own, so ranks "
                "would issue collectives in different orders; valid: stage=0, 1, 2, a loss of one thread"
            )
            raise self._in_other_thread

    def _check_order(self, group: ParamGroup, number: int) -> None:
        """In the first step: checks that all ranks issue the collective with this ``number`` now.

        Raises EngineUnsupported otherwise: ranks would exchange different buckets or wait for each other forever.
        """
        ends = torch.tensor([number, -number], device=group.buckets[0].unsharded_param.device)
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        if ends.sum():
            raise EngineUnsupported(
                f"engine=native at stage=3: ranks use units in different orders (here {group.name} is next); "
                "valid: units of which every rank calls the same, whatever its samples; stage=0, 1, 2"
            )

    def _on_access(self, bucket: Bucket, outside: bool) -> None:
        """A parameter of ``bucket`` is needed now. If it was read outside its unit, its last use is unknown."""
        if self._phase:
            group = self._group_of[bucket]
            if not bucket.is_unsharded:
                self._unshard(group)
            if outside:
                self._kept.add(group)

    def _pre_forward(self, group: ParamGroup, module: nn.Module, inputs: Any, named_inputs: Any) -> None:
        self._forward_calls[group] += 1
        group.set_in_forward(True)
        self._unshard(group)
        if group.frozen and module is group.modules[0]:
            entering = needing_gradients((inputs, named_inputs))
            if entering:
                self._hooks += when_all_have_gradients(entering, partial(self._post_backward, group))

    def _post_forward(self, group: ParamGroup, module: nn.Module, inputs: Any, output: Any) -> None:
        returned = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        leaving = needing_gradients(returned)
        if leaving:
            self._hooks.append(register_multi_grad_hook(leaving, partial(self._pre_backward, group), mode="any"))
        self._kept.update(self._group_of[bucket] for leaf in returned if (bucket := self._access.bucket_of(leaf)))
        self._forward_calls[group] -= 1
        if self._forward_calls[group] > 0:
            return
        group.set_in_forward(False)
        if self._phase != "backward" and module is group.modules[-1] and group not in self._kept:
            group.save_writes()
            group.reshard()

    def _pre_backward(self, group: ParamGroup, gradient: Tensor) -> None:
        """Backward reaches a call of the group."""
        self._backward_calls[group] += 1
        self._unshard(group)

    def _post_backward(self, group: ParamGroup) -> None:
        """Backward has left a call of the group; it may have reached another one before."""
        self._backward_calls[group] -= 1
        if self._backward_calls[group] <= 0 and group not in self._kept:
            for bucket in group.frozen:
                bucket.reshard()
