"""Backward: gradients come into their buckets as autograd makes them, and a full bucket goes onto the wire.

Every rank launches buckets in the order in which they were laid out, whatever order they fill in, so that collectives
meet. With overlap a bucket is launched as soon as it and all before it are full; without, after backward. A parameter
that backward did not reach contributes zero.

    stages 0, 1   a bucket's gradients have memory of their own for good; micro-batches add up there
    stages 2, 3   a bucket has memory from its first gradient until it is reduced; what is kept is this rank's shard,
                  and micro-batches add up in the shard, so each of them is reduced
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.engines.native.bucket import Bucket
from bench.engines.native.collectives import Collectives
from bench.engines.native.p2p_thread import Finish
from bench.engines.native.policy import ShardingPolicy
from bench.engines.spec import EngineUnsupported

IN_FLIGHT = 1
"""Buckets that stay on the wire when another one is launched, at stages 1 to 3: bounds what is received at once, and
at stages 2 and 3 what is collected. At stage 0 a bucket on the wire needs no more memory, and all may be there."""


class BucketGradients:
    """The gradients of one bucket: ``flat`` while they are collected, ``result`` once they are reduced."""

    def __init__(self, bucket: Bucket, policy: ShardingPolicy) -> None:
        self.bucket = bucket
        self.policy = policy
        self.flat: Tensor | None = None
        self.result: Tensor | None = None
        self.written: set[int] = set()
        self.missing: set[int] = set()
        self.is_launched = False

    def expect(self) -> None:
        """A backward begins: every parameter's gradient is missing."""
        self.missing = set(range(len(self.bucket.parameters)))
        self.is_launched = False

    def add(self, slot_number: int, gradient: Tensor) -> None:
        """Raises EngineUnsupported for one more gradient of a bucket that is on the wire."""
        if self.is_launched:
            raise EngineUnsupported(
                f"engine=native with overlap: a weight of shape {tuple(gradient.shape)} got a gradient after its "
                "bucket had been reduced, as where several reentrant checkpoints use it; "
                "valid: use_reentrant=False, overlap=false"
            )
        if self.flat is None:
            self.flat = torch.empty_like(self.bucket.whole)
        place = self.bucket.view_of(self.flat, slot_number)
        if slot_number in self.written:
            place += gradient
        else:
            place.copy_(gradient)
            self.written.add(slot_number)
        self.missing.discard(slot_number)

    def fill_gaps(self) -> Tensor:
        """The whole bucket, with zeros for parameters that have no gradient and for padding."""
        layout = self.bucket.layout
        if self.flat is None:
            self.flat = torch.empty_like(self.bucket.whole)
        for gap in layout.gaps:
            self.flat[gap].zero_()
        for number, slot in enumerate(layout.slots):
            if number not in self.written:
                self.flat[slot.elements].zero_()
        return self.flat

    def reduce(self, collectives: Collectives) -> Finish:
        """Starts the reduction; once finished, ``result`` has the sum over ranks: all of it (stage 0) or the shard."""
        flat = self.fill_gaps()
        self.written.clear()
        self.is_launched = True
        if not self.policy.reduce_scatters:
            self.result = flat
            return collectives.all_reduce(flat)
        earlier = self.result
        own = flat[self.bucket.own]
        out = torch.empty_like(own) if self.policy.shard_gradients else own
        finish = collectives.reduce_scatter(flat, out)

        def complete() -> None:
            finish()
            self.result = out
            if self.policy.shard_gradients:
                self.result = out if earlier is None else earlier.add_(out)
                self.flat = None

        return complete

    def clear(self) -> None:
        """The update is done."""
        self.result = None
        self.written.clear()
        if self.policy.shard_gradients:
            self.flat = None

    def held(self) -> list[Tensor]:
        """The memory that gradients have now."""
        return [tensor for tensor in (self.flat, self.result) if tensor is not None]


class GradientReducer:
    """Hooks every trainable parameter, and reduces the buckets of a backward."""

    def __init__(
        self,
        buckets: list[Bucket],
        collectives: Collectives,
        policy: ShardingPolicy,
        *,
        overlap: bool,
        in_flight: int | None,
    ) -> None:
        self.gradients = [BucketGradients(bucket, policy) for bucket in buckets if bucket.trainable]
        self.on_full: Callable[[Bucket], None] = lambda bucket: None
        """Called when all gradients of a bucket have come: stage 3 then frees its parameters."""
        self.on_launch: Callable[[Bucket], None] = lambda bucket: None
        """Called before a bucket's reduction is started."""
        self._collectives = collectives
        self._overlap = overlap
        self.in_flight = in_flight or (IN_FLIGHT if policy.reduce_scatters else len(self.gradients))
        self._reducing = False
        self._next = 0
        self._flying: list[Finish] = []
        for gradients in self.gradients:
            for number, parameter in enumerate(gradients.bucket.parameters):
                parameter.register_post_accumulate_grad_hook(self._hook(gradients, number))

    def begin(self, *, reduce: bool) -> None:
        """A backward begins; its gradients are reduced, or only added up."""
        self._reducing = reduce
        self._next = 0
        for gradients in self.gradients:
            gradients.expect()

    def end(self) -> None:
        """Backward has ended: launches what is left and waits for all of it."""
        if not self._reducing:
            return
        while self._next < len(self.gradients):
            self._launch()
        while self._flying:
            self._flying.pop(0)()

    def _hook(self, gradients: BucketGradients, number: int) -> Callable[[Tensor], None]:
        def collect(parameter: Tensor) -> None:
            assert parameter.grad is not None
            was_missing = bool(gradients.missing)
            gradients.add(number, parameter.grad)
            parameter.grad = None
            if was_missing and not gradients.missing:
                self.on_full(gradients.bucket)
                if self._reducing and self._overlap:
                    self._launch_full()

        return collect

    def _launch_full(self) -> None:
        while self._next < len(self.gradients) and not self.gradients[self._next].missing:
            self._launch()

    def _launch(self) -> None:
        gradients = self.gradients[self._next]
        self._next += 1
        self.on_launch(gradients.bucket)
        self._flying.append(gradients.reduce(self._collectives))
        if len(self._flying) > self.in_flight:
            self._flying.pop(0)()
