"""Memory of one rank, counted at the allocator: what a step holds at rest and at its peak, and what for.

Both kinds of device are watched by the profiler (``allocations.py``), which starts before the model is built, since
what was allocated before it is not seen. A CPU's figures are its running sum. On a GPU the caching allocator keeps
figures of its own, which count; what the profiler did not see of them is the kind ``unseen``.
"""

from __future__ import annotations

import gc
import os
import statistics
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils.hooks import RemovableHandle

from bench.measure.machine import nvml
from bench.measure.memory import allocations
from results.memory import RankMemory

State = dict[str, list[Tensor]]
"""Tensors by kind of model state."""
NOTHING: State = {}


class StepMemory:
    """Watches the allocator; its context begins before the model is built, and figures are valid after it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True, record_shapes=True)
        self._counted: list[CudaCounters] = []
        self._taken = 0
        self._forgotten: set[int] = set()
        self._beyond: int | None = None
        self._why_not = ""
        self._state: dict[str, int] = {}
        self._host_state: dict[str, int] = {}
        self.trace = allocations.Trace()

    def __enter__(self) -> Self:
        self._profile.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._profile.__exit__(kind, error, at)
        if kind is None:
            if self._counted:
                self._beyond, self._why_not = beyond_allocator_bytes()
            self.trace = allocations.Reader().read(allocations.events_of(self._profile, self._device.type))

    @contextmanager
    def step(self, state: State, batch: Iterable[Tensor], host_state: State = NOTHING) -> Iterator[None]:
        """Context of a step to be watched, which begins with ``state`` and trains on ``batch``.

        On a CPU, ``host_state`` is in the memory that is counted: it is of the kind ``host``.
        """
        counters = CudaCounters(self._device) if self._device.type == "cuda" else None
        with record_function(allocations.STEP):
            label_state(state | {"batch": list(batch), "other": reachable(self._device.type)})
            label_state({"host": all_of(host_state)})
            del state, host_state, batch
            yield
        self._taken += 1
        if counters:
            counters.stop()
            self._counted.append(counters)

    def forget(self) -> None:
        """The last step does not count: it did less than a step does."""
        self._forgotten.add(self._taken - 1)
        self._counted = self._counted[:-1]

    def forward(self) -> None:
        """A micro-batch begins."""
        allocations.mark("forward")

    def between(self, state: State, host_state: State = NOTHING) -> None:
        """Backward has ended and the update comes; the states are what the engine keeps."""
        self._state, self._host_state = state_bytes(state), state_bytes(host_state)
        label_state(state | {"host": all_of(host_state)})
        allocations.mark("update")

    def result(self) -> RankMemory:
        """The figures of the last step at rest, and of the last one with the median peak."""
        steps, peaks = self._steps(), self._peaks_bytes()
        rest_bytes = self._counted[-1].rest_bytes if self._counted else steps[-1].rest_bytes
        peak_bytes, typical = statistics.median_low(peaks), self.typical_step()
        return RankMemory(
            state_bytes=self._state,
            host_state_bytes=self._host_state,
            rest_bytes=rest_bytes,
            peak_bytes=peak_bytes,
            reserved_bytes=max((counted.reserved_bytes for counted in self._counted), default=None),
            step_peaks_bytes=peaks,
            rest_by_kind=completed(self.trace.rest_by_kind(steps[-1]), rest_bytes),
            peak_by_kind=completed(self.trace.peak_by_kind(typical), peak_bytes),
            peak_phase=typical.peak_phase,
            beyond_allocator_bytes=self._beyond,
            not_measured={"memory beyond the allocator": self._why_not} if self._why_not else {},
        )

    def typical_step(self) -> allocations.Step:
        """The last step with the median peak."""
        peaks = self._peaks_bytes()
        median = statistics.median_low(peaks)
        return [step for step, peak in zip(self._steps(), peaks, strict=True) if peak == median][-1]

    def _steps(self) -> list[allocations.Step]:
        return [step for number, step in enumerate(self.trace.steps) if number not in self._forgotten]

    def _peaks_bytes(self) -> list[int]:
        """Of each step that counts: by the GPU's allocator where there is one."""
        counted = [counters.peak_bytes for counters in self._counted]
        return counted or [step.peak_bytes for step in self._steps()]


class CudaCounters:
    """The caching allocator's own statistics of one step, from construction to ``stop``."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        self.rest_bytes = torch.cuda.memory_allocated(device)
        self.peak_bytes = self.reserved_bytes = 0

    def stop(self) -> None:
        torch.cuda.synchronize(self._device)
        self.peak_bytes = torch.cuda.max_memory_allocated(self._device)
        self.reserved_bytes = torch.cuda.max_memory_reserved(self._device)


def all_of(state: State) -> list[Tensor]:
    return [tensor for tensors in state.values() for tensor in tensors]


def label_state(state: State) -> None:
    for kind, tensors in state.items():
        allocations.label(kind, [part for tensor in tensors for part in stored(tensor)])


def reachable(device_type: str) -> list[Tensor]:
    """The tensors that Python can reach and that this process made after it was forked."""
    objects = gc.get_objects()
    kinds = {kind for kind in set(map(type, objects)) if kind in (Tensor, nn.Parameter) or is_dtensor(kind)}
    tensors = [part for entry in objects if type(entry) in kinds for part in stored(entry)]
    return [tensor for tensor in tensors if tensor.device.type == device_type]


def completed(by_kind: dict[str, int], measured: int) -> dict[str, int]:
    """``by_kind`` with what the counter holds beyond it as ``unseen`` (negative: a release was not seen)."""
    unseen = measured - sum(by_kind.values())
    return by_kind | {"unseen": unseen} if unseen else by_kind


def beyond_allocator_bytes() -> tuple[int | None, str]:
    """GPU memory of this process outside of the caching allocator: context, kernels, NCCL's buffers.

    None, and why, where the driver does not distinguish processes, as in most containers.
    """
    gpu, why_not = nvml.gpu(torch.device("cuda", torch.cuda.current_device()))
    if gpu is None:
        return None, why_not or "nvidia-ml-py is not installed"
    used = gpu.process_bytes(os.getpid())
    if used is None:
        return None, "; ".join(gpu.errors.values()) or "the driver does not list this process, as in most containers"
    return used - torch.cuda.memory_reserved(), ""


@contextmanager
def gathered_parameters() -> Iterator[None]:
    """While it is open, parameters are labelled ``gathered`` where a module computes with them.

    That is after a module's forward, and in backward as a parameter's gradient arrives. What is state keeps that kind.
    """
    handles: dict[int, RemovableHandle] = {}

    def seen(parameter: Tensor) -> None:
        allocations.label("gathered", [local(parameter.detach())])

    def after_forward(module: nn.Module, inputs: Any, outputs: Any) -> None:
        for parameter in module.parameters(recurse=False):
            seen(parameter)
            if parameter.requires_grad and parameter.is_leaf and id(parameter) not in handles:
                handles[id(parameter)] = parameter.register_post_accumulate_grad_hook(seen)

    forward = register_module_forward_hook(after_forward)
    try:
        yield
    finally:
        for handle in (forward, *handles.values()):
            handle.remove()


def state_bytes(state: State) -> dict[str, int]:
    """Bytes of each kind of state; storage that several tensors share is counted once, under the first kind."""
    seen: set[int] = set()
    sizes = {}
    for kind, tensors in state.items():
        total = 0
        for part in (part for tensor in tensors for part in stored(tensor)):
            storage = part.untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                total += storage.nbytes()
        sizes[kind] = total
    return sizes


def stored(tensor: Tensor) -> list[Tensor]:
    """The strided tensors in which a tensor keeps what this rank holds of it: itself, or the parts of a sparse or
    quantized one."""
    own = local(tensor)
    if is_traceable_wrapper_subclass(own):  # such as a quantized one
        names, _ = own.__tensor_flatten__()
        return [part for name in names for part in stored(getattr(own, name))]
    if own.layout is torch.strided:
        return [own]
    if own.layout is torch.sparse_coo:
        return [own._indices(), own._values()]
    if own.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [own.crow_indices(), own.col_indices(), own.values()]
    if own.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [own.ccol_indices(), own.row_indices(), own.values()]
    return []


def local(tensor: Tensor) -> Tensor:
    """The part of a DTensor that this rank holds; any other tensor as it is."""
    return tensor.to_local() if is_dtensor(type(tensor)) else tensor  # type: ignore[attr-defined]


def is_dtensor(kind: type) -> bool:
    return issubclass(kind, Tensor) and hasattr(kind, "to_local")
