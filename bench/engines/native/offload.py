"""The place of a shard's update: the device that computes, or the host, which then keeps the optimizer's state.

    place      optimizer state and updated weights   copied per step and rank
    OnDevice   on the device                         nothing
    OnHost     in host memory, pinned for CUDA       the reduced gradient to the host, the updated shard back

An update on the host is ``take_gradient`` for all buckets, then the optimizer and ``give_back`` bucket by bucket. On
CUDA, copies have a stream of their own: while one bucket is updated, the gradients of later ones arrive and the shards
of earlier ones leave. On a CPU, host and device are the same memory. The copies are made all the same, so that the
update is the one that a GPU would make.

As with master weights, what forward writes to the parameters is lost: the host's weights are what is trained.

Source: Ren et al., ZeRO-Offload (USENIX ATC 2021), section 4.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from bench.engines.native.bucket import Bucket


class UpdatePlace(Protocol):
    """The memory in which one bucket's shard is updated."""

    weights: Tensor
    """The weights that the optimizer updates."""

    def take_gradient(self, reduced_grad: Tensor) -> None:
        """Starts to bring the reduced gradient to this place."""
        ...

    def gradient(self) -> Tensor:
        """The gradient, once it is here. The update may write to it."""
        ...

    def give_back(self) -> None:
        """Puts the updated weights into the bucket's shard, before whatever the device does next."""
        ...

    def host_state(self) -> dict[str, list[Tensor]]:
        """Tensors in host memory by kind, without the optimizer's."""
        ...


class OnDevice:
    """The optimizer updates the bucket's shard itself."""

    def __init__(self, bucket: Bucket) -> None:
        self.weights = bucket.sharded_param
        self._gradient: Tensor | None = None

    def take_gradient(self, reduced_grad: Tensor) -> None:
        self._gradient = reduced_grad

    def gradient(self) -> Tensor:
        assert self._gradient is not None
        gradient, self._gradient = self._gradient, None
        return gradient

    def give_back(self) -> None:
        """Does nothing: the weights are there."""

    def host_state(self) -> dict[str, list[Tensor]]:
        return {}


class HostCopies:
    """Starts copies between a device and pinned host memory, on a stream of their own where the device has streams."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def empty(self, elements: int, dtype: torch.dtype) -> Tensor:
        """Host memory that asynchronous copies may use."""
        return torch.empty(elements, dtype=dtype, pin_memory=self._stream is not None)

    def start(self, target: Tensor, source: Tensor) -> torch.cuda.Event | None:
        """Copies once the device has done all that it was given so far. None: the copy has ended."""
        if self._stream is None:
            target.copy_(source)
            return None
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            event: torch.cuda.Event = self._stream.record_event()
        return event

    def order_before_compute(self, event: torch.cuda.Event | None) -> None:
        """Makes whatever the device is given from now on wait for a copy to it."""
        if event is not None:
            torch.cuda.current_stream(self._device).wait_event(event)


class OnHost:
    """The optimizer updates a copy of the bucket's shard in host memory."""

    def __init__(self, bucket: Bucket, copies: HostCopies, *, master_weights: bool) -> None:
        shard = bucket.sharded_param
        self._shard, self._copies = shard, copies
        self._grad = copies.empty(shard.numel(), shard.dtype)
        self.weights = copies.empty(shard.numel(), torch.float32 if master_weights else shard.dtype)
        self.weights.copy_(shard)
        # Weights are cast on the host, so that a copy has the bytes of the shard's dtype.
        self._cast = copies.empty(shard.numel(), shard.dtype) if self.weights.dtype != shard.dtype else None
        self._arrived: torch.cuda.Event | None = None

    def take_gradient(self, reduced_grad: Tensor) -> None:
        self._arrived = self._copies.start(self._grad, reduced_grad)

    def gradient(self) -> Tensor:
        if self._arrived is not None:
            self._arrived.synchronize()  # also before the device's gradient is freed
        return self._grad

    def give_back(self) -> None:
        # No event guards the source: the next update waits for a gradient that is copied later on the same stream.
        source = self.weights if self._cast is None else self._cast.copy_(self.weights)
        self._copies.order_before_compute(self._copies.start(self._shard, source))

    def host_state(self) -> dict[str, list[Tensor]]:
        return {
            "params": [] if self._cast is None else [self._cast],
            "master": [self.weights],
            "grads": [self._grad],
        }
