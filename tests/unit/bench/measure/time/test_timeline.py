"""What a step is made of, from profiles whose answer is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.profiler import DeviceType

from bench.measure.time.intervals import total, union
from bench.measure.time.timeline import StepTimeline, cpu_steps, gpu_steps, parts, skews
from results.attribution import StepParts

MS = 1_000_000


@dataclass
class Event:
    """As kineto has them, in ms."""

    what: str
    begin: float
    end: float
    kind: str = "op"
    """op, range, flying, kernel, or device range."""
    thread: int = 1
    correlation: int = 0
    """Of a launch and the kernel that it launched; operators count apart."""
    linked: int = 0
    """The operator that a kernel comes from."""

    def name(self) -> str:
        return self.what

    def start_ns(self) -> int:
        return round(self.begin * MS)

    def end_ns(self) -> int:
        return round(self.end * MS)

    def start_thread_id(self) -> int:
        return self.thread

    def is_async(self) -> bool:
        return self.kind == "flying"

    def is_user_annotation(self) -> bool:
        return "range" in self.kind

    def correlation_id(self) -> int:
        return self.correlation

    def linked_correlation_id(self) -> int:
        return self.linked

    def device_type(self) -> Any:
        return DeviceType.CUDA if self.kind in ("kernel", "device range") else DeviceType.CPU


def attributed(step: StepTimeline, skew: list[tuple[int, int]] | None = None) -> StepParts:
    step_parts = parts(step, skew or [], total([step.interval]) / 1e9)
    assert sum(step_parts.parts_s.values()) == pytest.approx(step_parts.step_s)
    return step_parts


def in_ms(step_parts: StepParts) -> dict[str, float]:
    return {name: round(1e3 * seconds, 6) for name, seconds in step_parts.parts_s.items() if seconds}


def test_a_cpu_step_is_cut_into_its_parts() -> None:
    """Backward meets a wait for an all-reduce that runs from 30 to 60; another thread's operators are not ours."""
    events = [
        Event("bench.step", 0, 100, "range"),
        Event("bench.data", 0, 5, "range"),
        Event("aten::index", 1, 4),
        Event("bench.forward_backward", 5, 70, "range"),
        Event("aten::mm", 6, 20),
        Event("DistributedDataParallel.forward", 5, 28, "range"),
        Event("calibrated.forward", 20, 25, "range"),
        Event("autograd::engine::evaluate_function: MmBackward0", 28, 65),
        Event("c10d::allreduce_", 29, 30),
        Event("gloo:all_reduce", 30, 60, "flying", thread=2),
        Event("aten::copy_", 30, 60, thread=2),
        Event("bench.wait", 40, 60, "range"),
        Event("bench.optimizer", 70, 98, "range"),
        Event("aten::add_", 71, 90),
    ]
    (step,) = cpu_steps(events)
    step_parts = attributed(step)
    assert in_ms(step_parts) == {"data": 5, "compute": 14 + 5 + 1 + 10 + 5, "exposed": 21, "optimizer": 28, "host": 11}
    assert (step_parts.communication_s, step_parts.overlapped_s) == (0.031, 0.01)
    assert step.issues == [("c10d::allreduce_", 29 * MS)]
    late = attributed(step, union([(29 * MS, 45 * MS)]))
    assert (late.straggler_s, late.exposed_s) == (0.006, 0.015)


def test_an_engine_that_communicates_on_its_own_thread_is_seen_by_its_ranges() -> None:
    """Asked for at 20, it communicates until 70; backward continues, and waits within an operator from 50."""
    events = [
        Event("bench.step", 0, 100, "range"),
        Event("bench.data", 0, 5, "range"),
        Event("bench.forward_backward", 5, 80, "range"),
        Event("autograd::engine::evaluate_function: MmBackward0", 10, 75),
        Event("engine::all_reduce", 20, 21),
        Event("engine:communication", 21, 70, thread=2),
        Event("c10d::recv_", 22, 23, thread=2),
        Event("bench.wait", 23, 60, "range", thread=2),
        Event("aten::add_", 60, 62, thread=2),
        Event("engine::wait", 50, 71),
        Event("bench.optimizer", 80, 95, "range"),
    ]
    (step,) = cpu_steps(events)
    step_parts = attributed(step)
    assert in_ms(step_parts) == {"data": 5, "compute": 10 + 29 + 4, "exposed": 1 + 21, "optimizer": 15, "host": 15}
    assert (step_parts.communication_s, step_parts.overlapped_s) == (0.051, 0.029)
    assert step.issues == [("engine::all_reduce", 20 * MS)]


def gpu_trace() -> list[Event]:
    """Two steps as CUPTI has them: backward and NCCL are launched by autograd's thread, NCCL runs on its own stream."""
    host = [
        Event("bench.step", 0, 9, "range"),
        Event("bench.data", 0, 1, "range"),
        Event("bench.forward_backward", 1, 7, "range"),
        Event("bench.optimizer", 7, 9, "range"),
        Event("Optimizer.step#Adam.step", 7, 9, "range"),
        Event("bench.step", 10, 15, "range"),
        Event("aten::mm", 11, 12, correlation=3),
    ]
    launches = [
        Event("cudaMemcpyAsync", 0.5, 0.6, correlation=1),
        Event("cudaLaunchKernel", 2, 2.1, correlation=2),
        Event("cudaLaunchKernel", 4, 4.1, thread=2, correlation=3),
        Event("cuLaunchKernelEx", 5, 5.1, thread=2, correlation=4),
        Event("cudaLaunchKernel", 8, 8.1, correlation=5),
    ]
    device = [
        Event("Memcpy HtoD (Pageable -> Device)", 10, 12, "kernel", correlation=1),
        Event("sgemm", 12, 20, "kernel", correlation=2, linked=9),
        Event("sgemm", 20, 30, "kernel", correlation=3),
        Event("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevComm*)", 20, 40, "kernel", correlation=4),
        Event("multi_tensor_apply", 42, 48, "kernel", correlation=5),
        Event("sgemm", 50, 80, "kernel", correlation=99, linked=3),
    ]
    return [*host, *launches, *device]


def test_a_gpu_step_ends_where_the_device_has_done_all_of_it() -> None:
    """Kernels belong to the step in which they were launched, from whatever thread: by the call that launched them,
    or, where that was not traced, by the operator. The host begins the second step at 10, the device at 48."""
    first, second = map(attributed, gpu_steps(gpu_trace()))
    assert in_ms(first) == {"data": 1 + 2, "compute": 18, "exposed": 10, "optimizer": 6, "host": 9 + 2}
    assert (first.communication_s, first.overlapped_s) == (0.02, 0.01)
    assert in_ms(second) == {"compute": 30, "host": 2}


def test_a_gpu_that_waits_for_a_batch_waits_for_data_in_the_last_step_too() -> None:
    """Each step: 50 ms to make the batch, 1 to copy it, 38 and 10 of kernels, of which the host waits for none."""
    events = []
    for step, at in enumerate((0, 100)):
        ids, calls = range(3 * step + 1, 3 * step + 4), (50.5, 52, 53.5)
        ran = ((51, 52, "Memcpy HtoD (Pinned -> Device)"), (52, 90, "sgemm"), (90, 100, "multi_tensor_apply"))
        events += [
            Event("bench.step", at, at + 54, "range"),
            Event("bench.data", at, at + 51, "range"),
            Event("bench.forward_backward", at + 51, at + 53, "range"),
            Event("bench.optimizer", at + 53, at + 54, "range"),
            *(Event("cudaLaunch", at + begin, at + begin, correlation=ids[n]) for n, begin in enumerate(calls)),
            *(
                Event(what, at + begin, at + end, "kernel", correlation=ids[n])
                for n, (begin, end, what) in enumerate(ran)
            ),
        ]
    for step_parts in map(attributed, gpu_steps(events)):
        assert in_ms(step_parts) == {"data": 52, "compute": 38, "optimizer": 10}


def test_a_gpu_that_is_behind_its_host_waits_for_no_data() -> None:
    """The host launches 100 ms of work in 3 and then waits in the copy of the next batch: copies and gaps are host."""
    events, free, host, ids = [], 0.0, 0.0, count(1)
    for _ in range(4):
        called, copied = host + 1, max(host + 1, free)
        at = copied + 1  # the host goes on, and the device with it
        ran = [
            ("Memcpy HtoD (Pageable -> Device)", copied, at, called),
            ("sgemm", at, at + 60, at + 0.5),
            ("Memcpy DtoD (Device -> Device)", at + 60, at + 70, at + 1),
            ("multi_tensor_apply", at + 72, at + 99, at + 2.5),
        ]
        phases = {
            "step": (host, at + 3),
            "data": (host, at),
            "forward_backward": (at, at + 2),
            "optimizer": (at + 2, at + 3),
        }
        events += [Event(f"bench.{name}", *when, "range") for name, when in phases.items()]
        for (name, begin, end, launched_at), own in zip(ran, ids, strict=False):
            events.append(Event("cudaMemcpyAsync", launched_at, launched_at, correlation=own))
            events.append(Event(name, begin, end, "kernel", correlation=own))
        free, host = at + 99, at + 3
    step_parts = [in_ms(attributed(step)) for step in gpu_steps(events)]
    assert step_parts[0] == {"data": 2, "compute": 60, "optimizer": 27, "host": 12}
    assert step_parts[1:] == [{"data": 1, "compute": 60, "optimizer": 27, "host": 12}] * 3


@pytest.mark.parametrize("call", ["__cudaLaunchKernel", "cudaLaunchKernelExC", "INVALID"])
def test_a_launch_is_one_by_whatever_name_kineto_knows_it(call: str) -> None:
    trace = gpu_trace()
    renamed = [replace(event, what=call) if event.what == "cudaLaunchKernel" else event for event in trace]
    assert gpu_steps(renamed) == gpu_steps(trace)


def test_ranges_that_kineto_draws_on_the_device_change_nothing() -> None:
    """One a stream, and without what a range inside launched: a step of them would be cut in two, or be missing."""
    drawn = [
        Event("bench.step", 10, 30, "device range"),
        Event("bench.step", 20, 40, "device range"),
        Event("nccl:all_reduce", 20, 40, "device range"),
        Event("Optimizer.step#Adam.step", 42, 48, "device range"),
    ]
    assert gpu_steps([*gpu_trace(), *drawn]) == gpu_steps(gpu_trace())


def test_a_step_without_a_trace_of_the_gpu_is_reported() -> None:
    with pytest.raises(RuntimeError, match="CUPTI"):
        gpu_steps([event for event in gpu_trace() if event.kind != "kernel"])


def test_a_rank_waits_from_its_own_call_to_the_last_one() -> None:
    ranks = [[("a", 10), ("b", 50)], [("a", 30), ("b", 40)], [("a", 20), ("b", 60)]]
    assert skews(ranks, 0) == [(10, 30), (50, 60)]
    assert skews(ranks, 1) == [(40, 60)]
    assert skews([ranks[0], [("b", 1), ("a", 2)]], 0) is None
    assert skews([[], []], 1) == []


spans = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=8).map(union)


@given(spans, spans, spans, spans, spans)
def test_parts_add_up_whatever_happens(data: Any, optimizer: Any, compute: Any, communication: Any, skew: Any) -> None:
    step = StepTimeline((0, 100), data, optimizer, compute, communication)
    step_parts = attributed(step, skew)
    assert min(step_parts.parts_s.values()) >= 0
    assert step_parts.exposed_s + step_parts.straggler_s <= step_parts.communication_s - step_parts.overlapped_s + 1e-15
