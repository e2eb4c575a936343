"""The copies of a step between a device and its host, counted where torch dispatches operators.

On a GPU, a copy is between device and host if its tensors are on different types of device, also one of the model
itself. gloo copies each collective's tensors of a GPU through host memory, so nothing is counted with it. On a CPU, it
is one if exactly one of its tensors has the storage of an engine's host state. Bytes are those of the tensor in device
memory: torch casts on the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.measure.memory.step import State, all_of, stored
from results.memory import RankMemory

aten = torch.ops.aten

COPIES = "copies between device and host"


def why_not_counted(device_type: str, backend: str) -> str:
    """Why copies of offload cannot be counted; empty if they can."""
    if device_type == "cpu" or backend != "gloo":
        return ""
    return f"backend=gloo on device={device_type} copies each collective through host memory; use backend=nccl"


class HostCopyCounter(TorchDispatchMode):
    """Counts the bytes that this rank copies in its context, each way."""

    def __init__(self, device_type: str, host_state: State) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device_type = device_type
        self._host = {part.untyped_storage().data_ptr() for tensor in all_of(host_state) for part in stored(tensor)}
        self.to_host_bytes = 0
        self.to_device_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(kind.__torch_dispatch__ is not Tensor.__torch_dispatch__ for kind in types):
            return NotImplemented  # a DTensor's operator comes again as what it is made of
        result = func(*args, **(kwargs or {}))
        for target, source in pairs(func.overloadpacket, args, result):
            self._count(target, source)
        return result

    def _count(self, target: Tensor, source: Tensor) -> None:
        if self._is_on_host(target) and not self._is_on_host(source):
            self.to_host_bytes += source.nbytes
        elif self._is_on_host(source) and not self._is_on_host(target):
            self.to_device_bytes += target.nbytes

    def _is_on_host(self, tensor: Tensor) -> bool:
        if self._device_type != "cpu":
            return tensor.device.type == "cpu"
        return tensor.untyped_storage().data_ptr() in self._host

    def added_to(self, memory: RankMemory) -> RankMemory:
        return replace(memory, copied_to_host_bytes=self.to_host_bytes, copied_to_device_bytes=self.to_device_bytes)


def pairs(operator: Any, args: Any, result: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Target and source of each copy that an operator makes.

    A conversion on a CPU is none: its result is new memory, of which no engine says that it is the host's.
    """
    if operator is aten.copy_:
        yield args[0], args[1]
    elif operator is aten._to_copy and result.device != args[0].device:
        yield result, args[0]
    elif operator is aten._foreach_copy_:
        both: Iterable[tuple[Tensor, Tensor]] = zip(args[0], args[1], strict=True)
        yield from both
