"""A bucket of parameters: one flat tensor, of which the module's parameters are views.

``whole`` is the flat tensor in the dtype of computation. ``shard`` is what the optimizer updates: ``whole`` itself
(stage 0), this rank's part of it (stages 1 and 2), or a tensor of its own: fp32 master weights, and at stage 3, where
``whole`` has memory only while its unit computes.

The storage of ``whole`` is resized, never replaced: tensors that autograd saved for backward are views of it and find
their values again once it is gathered anew. A parameter of a freed bucket has its shape and one number, so that whoever
comes by it unseen (``param_access.py``) reads NaN and not freed memory.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from bench.engines.native.collectives import Collectives
from bench.engines.native.layout import Layout
from bench.engines.native.p2p_thread import Finish
from bench.engines.views import dense_strides


class Bucket:
    """The parameters of one layout on one rank."""

    def __init__(self, layout: Layout, parameters: list[nn.Parameter], collectives: Collectives) -> None:
        self.layout = layout
        self.collectives = collectives
        self.parameters = [parameters[slot.parameter] for slot in layout.slots]
        self.trainable = self.parameters[0].requires_grad
        self.own = layout.shard(collectives.rank)
        like = self.parameters[0]
        self.whole = torch.zeros(layout.size, dtype=like.dtype, device=like.device)
        self.strides = [dense_strides(parameter) for parameter in self.parameters]
        self.views = [self.view_of(self.whole, number) for number in range(len(self.parameters))]
        for view, parameter in zip(self.views, self.parameters, strict=True):
            view.copy_(parameter.detach())
            parameter.data = view
        self.is_whole = True
        self.in_use = False
        """Stage 3: a unit that it belongs to is in its forward."""
        self.shard = self.whole
        self.owns_shard = False
        self._absent = [absent(like.dtype, like.device).expand(parameter.shape) for parameter in self.parameters]
        self._bytes = self.whole.untyped_storage().nbytes()

    def view_of(self, flat: Tensor, slot_number: int) -> Tensor:
        """One parameter's elements in a tensor of the bucket's layout, as a view with the parameter's strides."""
        elements = flat[self.layout.slots[slot_number].elements]
        return elements.as_strided(self.parameters[slot_number].shape, self.strides[slot_number])

    def keep_shard(self, *, partitioned: bool, master: bool, freeable: bool) -> None:
        """Settles what the optimizer updates; see the module's docstring."""
        part = (self.whole[self.own] if partitioned else self.whole).detach()
        self.owns_shard = freeable or (master and self.trainable)
        if self.owns_shard:
            part = part.to(torch.float32 if master and self.trainable else part.dtype, copy=True)
        self.shard = part

    def publish(self) -> None:
        """Writes an updated shard that has memory of its own into its place in ``whole``, if that is there."""
        if self.owns_shard and self.is_whole:
            place = self.whole if self.shard.numel() == self.whole.numel() else self.whole[self.own]
            place.copy_(self.shard)

    def start_gather(self) -> Finish:
        """Stage 3: allocates ``whole`` and gathers it from all shards; the parameters are usable once finished."""
        self.whole.untyped_storage().resize_(self._bytes)
        self.whole[self.own].copy_(self.shard)
        finish = self.collectives.all_gather(self.whole)

        def complete() -> None:
            finish()
            for view, parameter in zip(self.views, self.parameters, strict=True):
                parameter.data = view
            self.is_whole = True

        return complete

    def take_back(self) -> None:
        """What forward wrote into the weights stays, also where it gave them other memory (``weight.data = ...``).

        Not so with master weights, which are what is trained.
        """
        if not self.is_whole:
            return
        for view, parameter in zip(self.views, self.parameters, strict=True):
            if parameter.data_ptr() != view.data_ptr():
                view.copy_(parameter.detach())
                parameter.data = view
        if self.owns_shard and self.shard.dtype == self.whole.dtype:
            self.shard.copy_(self.whole[self.own])

    def free(self) -> None:
        """Stage 3: gives back the memory of ``whole``, if it has any."""
        if not self.is_whole:
            return
        for parameter, nothing in zip(self.parameters, self._absent, strict=True):
            parameter.data = nothing
        self.whole.untyped_storage().resize_(0)
        self.is_whole = False


@functools.cache
def absent(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The one number of parameters that are not there; on a CPU in memory that torch's allocator does not count."""
    number = torch.frombuffer(bytearray(dtype.itemsize), dtype=dtype)
    return number.fill_(float("nan") if dtype.is_floating_point else 0)[0].to(device)
