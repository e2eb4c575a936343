"""Backward: gradients are collected into buckets as autograd computes them, and complete buckets are reduced.

Every rank reduces buckets in the order of the list, whatever order they are completed in, so that collectives are
issued in the same order on all ranks. With overlap, a bucket's reduction starts once it and all buckets before it are
complete; without, after backward. A parameter that backward did not reach contributes zero.

    gradients not sharded   a bucket's gradients keep their memory; micro-batches accumulate there
    gradients sharded       a bucket has memory from its first gradient until it is reduced; what is kept is this rank's
                            shard. Micro-batches accumulate in the shard, so each of them is reduced
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bench.engines.native.bucket import Bucket
from bench.engines.native.collectives import InFlight, Reductions
from bench.engines.native.policy import ShardingPolicy
from bench.engines.spec import EngineUnsupported

MAX_IN_FLIGHT = 1
"""Reductions that stay in flight when another one starts, where gradients are reduce-scattered. It bounds the memory
that receives shards and, where gradients are sharded, the memory of unsharded gradients. An all-reduce needs no more
memory, so all of them may be in flight."""


class BucketGradients:
    """The gradients of one bucket: unsharded while they are collected, then their sum over ranks."""

    def __init__(self, bucket: Bucket, policy: ShardingPolicy) -> None:
        self.bucket = bucket
        self.policy = policy
        self.unsharded_grad: Tensor | None = None
        """This rank's gradients, in the bucket's layout."""
        self.reduced_grad: Tensor | None = None
        """The sum over ranks: this rank's shard where gradients are reduce-scattered, else all of it."""
        self.written: set[int] = set()
        """Slots that have a gradient in ``unsharded_grad``."""
        self.missing: set[int] = set()
        """Slots whose gradient this backward has not computed yet."""
        self.is_reduced = False
        """The reduction of this backward has started."""

    def expect(self) -> None:
        """Marks every parameter's gradient as missing, at the start of a backward."""
        self.missing = set(range(len(self.bucket.parameters)))
        self.is_reduced = False

    def add(self, slot_number: int, gradient: Tensor) -> None:
        """Raises EngineUnsupported for a gradient of a bucket whose reduction has started."""
        if self.is_reduced:
            raise EngineUnsupported(
                f"engine=native with overlap: a weight of shape {tuple(gradient.shape)} got a gradient after its "
                "bucket had been reduced, as where several reentrant checkpoints use it; "
                "valid: use_reentrant=False, overlap=false"
            )
        if self.unsharded_grad is None:
            self.unsharded_grad = torch.empty_like(self.bucket.unsharded_param)
        place = self.bucket.view_of(self.unsharded_grad, slot_number)
        if slot_number in self.written:
            place += gradient
        else:
            place.copy_(gradient)
            self.written.add(slot_number)
        self.missing.discard(slot_number)

    def fill_gaps(self) -> Tensor:
        """Returns ``unsharded_grad`` with zeros for parameters without a gradient and for padding."""
        layout = self.bucket.layout
        if self.unsharded_grad is None:
            self.unsharded_grad = torch.empty_like(self.bucket.unsharded_param)
        for gap in layout.gaps:
            self.unsharded_grad[gap].zero_()
        for number, slot in enumerate(layout.slots):
            if number not in self.written:
                self.unsharded_grad[slot.elements].zero_()
        return self.unsharded_grad

    def start_reduce(self, collectives: Reductions) -> ReductionState:
        unsharded = self.fill_gaps()
        self.written.clear()
        self.is_reduced = True
        if not self.policy.reduce_scatters:
            return ReductionState(self, collectives.all_reduce(unsharded), unsharded, None)
        own = unsharded[self.bucket.own_elements]
        shard = torch.empty_like(own) if self.policy.shard_gradients else own
        return ReductionState(self, collectives.reduce_scatter(unsharded, shard), shard, self.reduced_grad)

    def clear(self) -> None:
        """Drops the gradients after the update."""
        self.reduced_grad = None
        self.written.clear()
        if self.policy.shard_gradients:
            self.unsharded_grad = None

    def memory(self) -> list[Tensor]:
        """The tensors that gradients occupy now."""
        return [tensor for tensor in (self.unsharded_grad, self.reduced_grad) if tensor is not None]


@dataclass(frozen=True)
class ReductionState:
    """A bucket's gradient reduction in flight, from ``start_reduce`` until ``wait``."""

    gradients: BucketGradients
    collective: InFlight
    output: Tensor
    """The sum over ranks of this micro-batch, once waited for."""
    accumulated: Tensor | None
    """The sums of earlier micro-batches, where gradients are sharded."""

    def wait(self) -> None:
        self.collective.wait()
        self.gradients.reduced_grad = self.output
        if self.gradients.policy.shard_gradients:
            if self.accumulated is not None:
                self.gradients.reduced_grad = self.accumulated.add_(self.output)
            self.gradients.unsharded_grad = None


class GradientReducer:
    """Collects the gradients of every trainable parameter through hooks, and reduces the buckets of a backward."""

    def __init__(
        self,
        buckets: list[Bucket],
        collectives: Reductions,
        policy: ShardingPolicy,
        *,
        overlap: bool,
        max_in_flight: int | None,
        bucket_complete: Callable[[Bucket], None],
        before_reduction: Callable[[Bucket], None],
    ) -> None:
        """``bucket_complete`` is called when all gradients of a bucket were computed, ``before_reduction`` before its
        reduction starts. ``max_in_flight``: None means as many as ``policy`` allows without more memory.
        """
        self.gradients = [BucketGradients(bucket, policy) for bucket in buckets if bucket.trainable]
        self.max_in_flight = max_in_flight or (MAX_IN_FLIGHT if policy.reduce_scatters else len(self.gradients))
        self._collectives = collectives
        self._overlap = overlap
        self._bucket_complete = bucket_complete
        self._before_reduction = before_reduction
        self._reducing = False
        self._next = 0
        self._in_flight: list[ReductionState] = []
        for gradients in self.gradients:
            for number, parameter in enumerate(gradients.bucket.parameters):
                parameter.register_post_accumulate_grad_hook(partial(self._collect, gradients, number))

    def start_backward(self, *, reduce: bool) -> None:
        """``reduce``: this backward's gradients are reduced; else they only accumulate."""
        self._reducing = reduce
        self._next = 0
        for gradients in self.gradients:
            gradients.expect()

    def finish_backward(self) -> None:
        """Starts the reductions that are left and waits for all of them."""
        if not self._reducing:
            return
        while self._next < len(self.gradients):
            self._reduce_next()
        while self._in_flight:
            self._in_flight.pop(0).wait()

    def _collect(self, gradients: BucketGradients, slot_number: int, parameter: Tensor) -> None:
        """The hook of one parameter: its gradient was computed."""
        assert parameter.grad is not None
        was_complete = not gradients.missing
        gradients.add(slot_number, parameter.grad)
        parameter.grad = None
        if not was_complete and not gradients.missing:
            self._bucket_complete(gradients.bucket)
            if self._reducing and self._overlap:
                self._reduce_complete()

    def _reduce_complete(self) -> None:
        while self._next < len(self.gradients) and not self.gradients[self._next].missing:
            self._reduce_next()

    def _reduce_next(self) -> None:
        gradients = self.gradients[self._next]
        self._next += 1
        self._before_reduction(gradients.bucket)
        self._in_flight.append(gradients.start_reduce(self._collectives))
        if len(self._in_flight) > self.max_in_flight:
            self._in_flight.pop(0).wait()
