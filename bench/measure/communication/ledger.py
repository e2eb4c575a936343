"""The collectives of a step: what each rank asks ``torch.distributed`` for, counted where torch dispatches operators.

Every call comes by there, from Python and from C++ (DDP's reducer): as an operator of ``c10d``, with its tensors and
its process group, or as a functional collective (DTensor's), which would call one of ``c10d`` further down. What an
engine sends in another way does not; ``Traits.uncounted`` says so of the engines that do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import _resolve_process_group
from torch.utils._python_dispatch import TorchDispatchMode

from results.launches import Collective


@dataclass(frozen=True)
class Call:
    """How an operator's arguments tell the size of the whole array S."""

    kind: str
    argument: str | None
    """The argument whose tensors are counted; None: nothing is sent but a signal."""
    times_ranks: bool = False
    """Whether that argument is one rank's part of S."""


CALLS = {
    "c10d": {
        "allreduce_": Call("all_reduce", "tensors"),
        "allreduce_coalesced_": Call("all_reduce", "tensors"),
        "_reduce_scatter_base_": Call("reduce_scatter", "input_tensor"),
        "reduce_scatter_": Call("reduce_scatter", "input_tensors"),
        "reduce_scatter_tensor_coalesced_": Call("reduce_scatter", "inputs"),
        "_allgather_base_": Call("all_gather", "input_tensor", times_ranks=True),
        "allgather_": Call("all_gather", "input_tensors", times_ranks=True),
        "allgather_coalesced_": Call("all_gather", "input_list", times_ranks=True),
        "allgather_into_tensor_coalesced_": Call("all_gather", "inputs", times_ranks=True),
        "alltoall_base_": Call("all_to_all", "input"),
        "alltoall_": Call("all_to_all", "input_tensors"),
        "broadcast_": Call("broadcast", "tensors"),
        "reduce_": Call("reduce", "tensors"),
        "gather_": Call("gather", "input_tensors", times_ranks=True),
        "gather_into_tensor_": Call("gather", "input_tensor", times_ranks=True),
        "scatter_": Call("scatter", "output_tensors", times_ranks=True),
        "send": Call("send", "tensors"),
        "recv_": Call("recv", "tensors"),
        "recv_any_source_": Call("recv", "tensors"),
        "barrier": Call("barrier", None),
        "monitored_barrier_": Call("barrier", None),
    },
    "_c10d_functional": {
        "all_reduce": Call("all_reduce", "input"),
        "all_reduce_": Call("all_reduce", "input"),
        "all_reduce_coalesced": Call("all_reduce", "inputs"),
        "all_reduce_coalesced_": Call("all_reduce", "inputs"),
        "reduce_scatter_tensor": Call("reduce_scatter", "input"),
        "reduce_scatter_tensor_out": Call("reduce_scatter", "input"),
        "reduce_scatter_tensor_coalesced": Call("reduce_scatter", "inputs"),
        "all_gather_into_tensor": Call("all_gather", "input", times_ranks=True),
        "all_gather_into_tensor_out": Call("all_gather", "input", times_ranks=True),
        "all_gather_into_tensor_coalesced": Call("all_gather", "inputs", times_ranks=True),
        "all_to_all_single": Call("all_to_all", "input"),
        "broadcast": Call("broadcast", "input"),
        "broadcast_": Call("broadcast", "input"),
        "isend": Call("send", "tensor"),
        "irecv": Call("recv", "tensor"),
    },
}


class Ledger(TorchDispatchMode):
    """Writes down every collective that this rank calls in its context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._counts: Counter[tuple[str, str, int, int]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(kind.__torch_dispatch__ is not Tensor.__torch_dispatch__ for kind in types):
            return NotImplemented  # a DTensor's operator comes again as what it is made of
        if func.namespace in CALLS:
            self._write(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _write(self, func: Any, args: Any, kwargs: Any) -> None:
        named = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
        ranks = group_size(named)
        if ranks is None:
            return
        name = func._schema.name.partition("::")[2]
        call = CALLS[func.namespace].get(name) or Call(name, "")  # under its own name: seen, of unknown cost
        if call.argument is None:
            self._counts[call.kind, "", 0, ranks] += 1
            return
        elements: Counter[str] = Counter()
        for tensor in tensors(named[call.argument] if call.argument else list(named.values())):
            elements[str(tensor.dtype).removeprefix("torch.")] += tensor.numel() * (ranks if call.times_ranks else 1)
        for dtype, count in elements.items():
            self._counts[call.kind, dtype, count, ranks] += 1

    def lines(self) -> list[Collective]:
        """A line for all that are alike, the largest first."""
        lines = [Collective(*alike, count) for alike, count in self._counts.items()]
        return sorted(lines, key=lambda line: (-line.total_bytes, line.kind, line.dtype, -line.elements))


def group_size(named: dict[str, Any]) -> int | None:
    """Ranks of the group that an operator names; None where it names none, as those that only wait."""
    group = named.get("process_group", named.get("group_name"))
    if isinstance(group, str):
        group = _resolve_process_group(group)  # type: ignore[arg-type]
    elif isinstance(group, torch.ScriptObject):
        group = dist.ProcessGroup.unbox(group)
    return None if group is None else int(group.size())


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from tensors(entry)
