"""Collectives by themselves: the time that each takes at each size, on the ranks of this launch.

An iteration begins with a barrier and lasts until its slowest rank is done, on a CPU by the wall clock and over NCCL by
events around it on the stream. So an iteration is a sample of its own; nccl-tests divide the time of many that may run
into each other.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from bench.measure.communication.sizes import CollectiveOptions, iterations
from bench.measure.time.timing import synchronize, wait_for_all
from results.launches import CollectiveTimes
from results.precision import ITEM_BYTES

Exchange = Callable[[Tensor, Tensor], object]
"""Sends the first tensor and receives into the second; those in place have one for both."""

CALLS: dict[str, Exchange] = {
    "all_reduce": lambda sent, _: dist.all_reduce(sent),
    "reduce_scatter": lambda sent, received: dist.reduce_scatter_tensor(received, sent),
    "all_gather": lambda sent, received: dist.all_gather_into_tensor(received, sent),
    "broadcast": lambda sent, _: dist.broadcast(sent, 0),
    "all_to_all": lambda sent, received: dist.all_to_all_single(received, sent),
}
IN_PLACE = ("all_reduce", "broadcast")


def measure(options: CollectiveOptions, steps: int, warmup: int, device: torch.device) -> list[CollectiveTimes]:
    """Every kind at every size; the same on every rank. Collective. Raises RuntimeError for a wrong result."""
    ranks = dist.get_world_size()
    gc.collect()
    gc.disable()
    try:
        return [
            measure_one(kind, options.size_bytes(size, ranks), options.dtype, steps, warmup, device)
            for kind in options.kinds
            for size in options.sizes_bytes
        ]
    finally:
        gc.enable()


def measure_one(
    kind: str, size_bytes: int, dtype: str, steps: int, warmup: int, device: torch.device
) -> CollectiveTimes:
    """One kind at one size, in bytes of the whole array."""
    sent, received = buffers(kind, size_bytes // ITEM_BYTES[dtype], dtype, device)
    measured = iterations(size_bytes, steps)
    timed = event_times_s if dist.get_backend() == "nccl" else wall_times_s

    def start_over() -> None:
        if kind in IN_PLACE:
            sent.fill_(dist.get_rank() + 1)

    def call() -> None:
        CALLS[kind](sent, received)

    times = torch.tensor(timed(start_over, call, warmup + measured, device)[warmup:], dtype=torch.double, device=device)
    if not is_right(kind, received):
        raise RuntimeError(f"{kind} of {size_bytes} bytes of {dtype} came out wrong")
    dist.all_reduce(times, dist.ReduceOp.MAX)
    return CollectiveTimes(kind, size_bytes, times.tolist())


def buffers(kind: str, elements: int, dtype: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """What is sent, of this rank's number plus one throughout, and what is received into."""
    part = elements // dist.get_world_size()
    here, there = {"all_gather": (part, elements), "reduce_scatter": (elements, part)}.get(kind, (elements, elements))
    sent = torch.full((here,), float(dist.get_rank() + 1), dtype=getattr(torch, dtype), device=device)
    return sent, sent if kind in IN_PLACE else torch.zeros(there, dtype=sent.dtype, device=device)


def is_right(kind: str, received: Tensor) -> bool:
    """Whether every rank's number came to where it belongs; sums to within the rounding of 16 bits."""
    ranks = dist.get_world_size()
    numbers = torch.arange(1.0, ranks + 1, device=received.device, dtype=received.dtype)
    if kind in ("all_gather", "all_to_all"):
        return bool((received.view(ranks, -1) == numbers[:, None]).all())
    expected = 1.0 if kind == "broadcast" else ranks * (ranks + 1) / 2
    return bool(((received - expected).abs() <= 0.02 * expected).all())


def wall_times_s(
    start_over: Callable[[], None], call: Callable[[], None], count: int, device: torch.device
) -> list[float]:
    """This rank's time of each iteration from the barrier before it."""
    times = []
    for _ in range(count):
        start_over()
        synchronize(device)
        wait_for_all(device)
        started = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - started)
    return times


def event_times_s(
    start_over: Callable[[], None], call: Callable[[], None], count: int, device: torch.device
) -> list[float]:
    """The same on the device's clock; an all-reduce of one element is the barrier. Waits once, at the end."""
    token = torch.zeros(1, device=device)
    marks = []
    for _ in range(count):
        start_over()
        dist.all_reduce(token)
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        call()
        after.record()
        marks.append((before, after))
    synchronize(device)
    return [before.elapsed_time(after) / 1000 for before, after in marks]
