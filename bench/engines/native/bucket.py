"""A bucket: consecutive parameters in one flat tensor, unsharded while they are used and sharded for the update.

``unsharded_param`` is the flat tensor of all parameters, in the dtype of computation; the module's parameters are views
of it. ``sharded_param`` is what this rank's optimizer updates:

    all of unsharded_param         optimizer state is not sharded
    a view of this rank's shard    optimizer state is sharded, parameters are not
    a tensor with its own memory   parameters are sharded, or master weights are fp32

Resharding resizes the storage of ``unsharded_param`` and never replaces it, as FSDP2 does: tensors that autograd saved
for backward are views of it, and have their values again once it is unsharded. A parameter of a resharded bucket has
its shape and one element, NaN. Code that reads it unnoticed (``param_access.py``) reads NaN and not freed memory.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.engines.native.collectives import Collectives, Gathers, InFlight
from bench.engines.native.gather import ParamGather
from bench.engines.native.layout import Layout
from bench.engines.native.policy import ShardingPolicy
from bench.engines.views import dense_strides


class Bucket:
    """The parameters of one layout on one rank."""

    def __init__(
        self,
        layout: Layout,
        parameters: list[nn.Parameter],
        collectives: Collectives,
        policy: ShardingPolicy,
        *,
        master_weights: bool,
        has_matrices: bool = False,
        quantizes: bool = False,
        neighbours: Gathers | None = None,
    ) -> None:
        """Moves ``parameters``, those that ``layout`` was made for, into one flat tensor. They start unsharded.

        ``has_matrices``: they are trained matrices of hidden layers, all of them (``bench.engines.muon``).
        ``quantizes`` and ``neighbours``: how shards are gathered (``gather.py``).
        """
        self.layout = layout
        self.collectives = collectives
        self.parameters = [parameters[slot.parameter] for slot in layout.slots]
        self.trainable = self.parameters[0].requires_grad
        self.has_matrices = has_matrices
        self.own_elements = layout.shard(collectives.rank)
        like = self.parameters[0]
        self.unsharded_param = torch.zeros(layout.size, dtype=like.dtype, device=like.device)
        self.gather = ParamGather(self.unsharded_param, collectives, neighbours, quantizes=quantizes)
        self.strides = [dense_strides(parameter) for parameter in self.parameters]
        self.views = [self.view_of(self.unsharded_param, number) for number in range(len(self.parameters))]
        for view, parameter in zip(self.views, self.parameters, strict=True):
            view.copy_(parameter.detach())
            parameter.data = view
        self.is_unsharded = True
        self.in_forward = False
        """A module that uses it is in its forward (only tracked where parameters are sharded)."""
        self.has_master = master_weights and self.trainable
        self.shard_has_memory = policy.shard_parameters or self.has_master
        self.sharded_param = self._shard(policy)
        self._placeholders = [
            placeholder(like.dtype, like.device).expand(parameter.shape) for parameter in self.parameters
        ]
        self._bytes = self.unsharded_param.untyped_storage().nbytes()

    def _shard(self, policy: ShardingPolicy) -> Tensor:
        part = self.unsharded_param[self.own_elements] if policy.shard_optimizer else self.unsharded_param
        if not self.shard_has_memory:
            return part.detach()
        return part.detach().to(torch.float32 if self.has_master else part.dtype, copy=True)

    def view_of(self, flat: Tensor, slot_number: int) -> Tensor:
        """One parameter's elements in a tensor of the bucket's layout, as a view with the parameter's strides."""
        elements = flat[self.layout.slots[slot_number].elements]
        return elements.as_strided(self.parameters[slot_number].shape, self.strides[slot_number])

    def start_unshard(self, *, exact: bool = False) -> AllGatherState:
        """Allocates ``unsharded_param`` and starts its all-gather. ``exact``: of all ranks' shards as they are
        trained."""
        self.unsharded_param.untyped_storage().resize_(self._bytes)
        self.unsharded_param[self.own_elements].copy_(self.sharded_param)
        return AllGatherState(self, self.start_all_gather() if exact else self.gather.start(self.unsharded_param))

    def start_all_gather(self) -> InFlight:
        """Starts to fill ``unsharded_param`` with all ranks' shards; this rank's own one is there."""
        return self.collectives.all_gather(self.unsharded_param)

    def reshard(self) -> None:
        """Frees the memory of ``unsharded_param``, if it has any."""
        if not self.is_unsharded:
            return
        for parameter, missing in zip(self.parameters, self._placeholders, strict=True):
            parameter.data = missing
        self.unsharded_param.untyped_storage().resize_(0)
        self.is_unsharded = False

    def copy_in(self) -> None:
        """Copies the updated ``sharded_param`` to its place in ``unsharded_param``, where each has memory."""
        self.gather.forget()
        if self.shard_has_memory and self.is_unsharded:
            every_element = self.sharded_param.numel() == self.unsharded_param.numel()
            place = self.unsharded_param if every_element else self.unsharded_param[self.own_elements]
            place.copy_(self.sharded_param)

    def save_writes(self) -> None:
        """Keeps what forward wrote to the parameters, also where it gave them other memory (``weight.data = ...``).

        With master weights or quantized ones, writes are lost: the shards are what is trained.
        """
        if not self.is_unsharded:
            return
        for view, parameter in zip(self.views, self.parameters, strict=True):
            if parameter.data_ptr() != view.data_ptr():
                view.copy_(parameter.detach())
                parameter.data = view
        has_same_numbers = self.sharded_param.dtype == self.unsharded_param.dtype and self.gather.is_exact
        if self.shard_has_memory and has_same_numbers:
            self.sharded_param.copy_(self.unsharded_param[self.own_elements])
            self.gather.keep_written(self.unsharded_param)


@dataclass(frozen=True)
class AllGatherState:
    """A bucket's unshard in flight, from ``start_unshard`` until ``wait``, after which the parameters are usable."""

    bucket: Bucket
    all_gather: InFlight

    def wait(self) -> None:
        self.all_gather.wait()
        for view, parameter in zip(self.bucket.views, self.bucket.parameters, strict=True):
            parameter.data = view
        self.bucket.is_unsharded = True


@functools.cache
def placeholder(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The one element of resharded parameters; on a CPU, in memory that torch's allocator does not count."""
    element = torch.frombuffer(bytearray(dtype.itemsize), dtype=dtype)
    return element.fill_(float("nan") if dtype.is_floating_point else 0)[0].to(device)
