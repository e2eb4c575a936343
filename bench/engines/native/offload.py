"""The place of a shard's update: the device that computes, or the host, which then keeps the optimizer's state.

    place      optimizer state and updated weights   copied per step and rank
    OnDevice   on the device                         nothing
    OnHost     in host memory, pinned for CUDA       the reduced gradient to the host, the updated shard back

An update on the host is ``take_gradient`` for all buckets, then the optimizer and ``give_back`` bucket by bucket. On
CUDA, each direction of copies has a stream of its own: while one bucket is updated, the gradients of later ones are
copied to the host and the shards of earlier ones to the device. On a CPU, host and device are the same memory. The
copies are made all the same, so that the update is the one that a GPU would make.

ZeRO-Offload copies gradients to the host during backward, and frees them on the device. Here they are copied once
backward has ended, and stay on the device until the update has ended.

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
        """Waits until the gradient is at this place, and returns it. The update may write to it."""
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


class CopyStreams:
    """Starts copies between a device and pinned host memory, on a stream for each direction where the device has
    streams.

    No event guards host memory that the device is copied from (``OnHost.give_back``). The host writes to it in the next
    update, after it has waited for a gradient. That copy waited for the compute stream (``to_host``), and the compute
    stream for every earlier copy to the device (``to_device``).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        has_streams = device.type == "cuda"
        self._to_host = torch.cuda.Stream(device) if has_streams else None
        self._to_device = torch.cuda.Stream(device) if has_streams else None

    def empty(self, elements: int, dtype: torch.dtype) -> Tensor:
        """Host memory that asynchronous copies may use."""
        return torch.empty(elements, dtype=dtype, pin_memory=self._to_host is not None)

    def to_host(self, target: Tensor, source: Tensor) -> torch.cuda.Event | None:
        """Copies once the device has done all that it was given so far. None: the copy has ended."""
        return self._start(self._to_host, target, source)

    def to_device(self, target: Tensor, source: Tensor) -> None:
        """The same in the other direction, and before whatever the device is given from now on."""
        event = self._start(self._to_device, target, source)
        if event is not None:
            torch.cuda.current_stream(self._device).wait_event(event)

    def _start(self, stream: torch.cuda.Stream | None, target: Tensor, source: Tensor) -> torch.cuda.Event | None:
        if stream is None:
            target.copy_(source)
            return None
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)
            event: torch.cuda.Event = stream.record_event()
        return event


class OnHost:
    """The optimizer updates a copy of the bucket's shard in host memory."""

    def __init__(self, bucket: Bucket, copies: CopyStreams, *, master_weights: bool) -> None:
        shard = bucket.sharded_param
        self._shard, self._copies = shard, copies
        self._grad = copies.empty(shard.numel(), shard.dtype)
        self.weights = copies.empty(shard.numel(), torch.float32 if master_weights else shard.dtype)
        self.weights.copy_(shard)
        # Weights are cast on the host, so that a copy has the bytes of the shard's dtype.
        self._cast = copies.empty(shard.numel(), shard.dtype) if self.weights.dtype != shard.dtype else None
        self._arrived: torch.cuda.Event | None = None

    def take_gradient(self, reduced_grad: Tensor) -> None:
        self._arrived = self._copies.to_host(self._grad, reduced_grad)

    def gradient(self) -> Tensor:
        if self._arrived is not None:
            self._arrived.synchronize()  # also before the device's gradient is freed
        return self._grad

    def give_back(self) -> None:
        self._copies.to_device(self._shard, self.weights if self._cast is None else self._cast.copy_(self.weights))

    def host_state(self) -> dict[str, list[Tensor]]:
        return {
            "params": [] if self._cast is None else [self._cast],
            "master": [self.weights],
            "grads": [self._grad],
        }
