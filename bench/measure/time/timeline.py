"""The parts of a profiled step: its interval on one rank, divided into parts that exclude each other.

On a CPU the interval is the training thread's. It *computes* while an operator runs there, autograd's own work around
it included, but not within the call of a collective or the wait for one. It *communicates* within those, since gloo
copies there, and while gloo (or MPI, or an engine) runs a collective on a thread of its own; a send or receive has no
such thread and counts until it has been waited for.

On a GPU the interval is the device's. It computes while a kernel runs that is not NCCL's; NCCL's are communication.

    data        while the batch is fetched
    exposed     communication and no computation, all ranks having called the collective
    straggler   the same, but a rank had not called it yet: start skew, not transfer
    optimizer   the rest of the update
    compute     the rest of what is computed
    host        what is left: Python, launches; on a GPU, no kernel runs
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import DeviceType, ProfilerActivity, profile, record_function

from bench.measure.time.intervals import Interval, Intervals, difference, intersection, total, union
from bench.measure.time.timing import marks
from results.attribution import StepParts

STEP, WAIT = "bench.step", "bench.wait"
DATA, FORWARD_BACKWARD, OPTIMIZER = "bench.data", "bench.forward_backward", "bench.optimizer"
COMPUTED = "calibrated."
"""Begin of the names of ranges that stand for computation without being an operator."""
CALLS = ("c10d::", "_c10d_functional::", "engine::")
IN_FLIGHT = ("gloo:", "mpi:", "engine:")
"""An engine that communicates on a thread of its own names ranges: ``engine::KIND`` where it asks the thread for a
collective, ``engine::wait`` where it waits for one, and ``engine:ANYTHING`` on the thread while it is at work."""
KERNELS_OF_NCCL = re.compile(r"nccl.*Kernel")
"""As HolisticTraceAnalysis tells them."""
COPIES = ("Memcpy", "Memset")
LAUNCH = re.compile(r"_*cu(da)?[A-Z]|INVALID|unknown")
"""Calls of CUDA's runtime and driver. Operators count their correlation ids apart, so that the numbers overlap. CUDA 13
launches by ``__cudaLaunchKernel``, which a kineto that does not know it yet calls ``INVALID``."""

Issue = tuple[str, int]
"""Kind of a collective, and when a rank called it (CPU) or began to run it (GPU), in ns of the host's clock."""


@dataclass
class StepTimeline:
    """One step of one rank, every set merged."""

    interval: Interval
    data: Intervals
    optimizer: Intervals
    compute: Intervals
    communication: Intervals
    issues: list[Issue] = field(default_factory=list)


class ProfilerWatch:
    """Profiles the steps in its context. Never at work while anything is timed for another purpose."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._on_gpu = device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._on_gpu else [])]
        threads = _ExperimentalConfig(profile_all_threads=not self._on_gpu)
        self._profile = profile(activities=activities, acc_events=True, experimental_config=threads)
        self._clock = marks(device)
        self._await: Any = None

    def __enter__(self) -> Self:
        """Begins; waits for a collective get a name in the profile."""
        waited = self._await = dist.Work.wait

        def named(work: dist.Work, *arguments: Any, **named_arguments: Any) -> Any:
            with record_function(WAIT):
                return waited(work, *arguments, **named_arguments)

        dist.Work.wait = named  # type: ignore[method-assign, assignment]
        self._profile.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()
        self._profile.__exit__(kind, error, at)
        dist.Work.wait = self._await  # type: ignore[method-assign]

    @contextmanager
    def step(self, *, fetches: int = 1) -> Iterator[ProfiledPhases]:
        """A step, which begins with the fetching of its batch, or of the first of ``fetches`` parts of it."""
        self._clock.mark()
        with record_function(STEP):
            yield ProfiledPhases(fetches)
        self._clock.mark()

    def step_s(self) -> list[float]:
        """Time of each step by the clock that also times the unprofiled ones."""
        return self._clock.intervals_s()[::2]

    def steps(self) -> list[StepTimeline]:
        """The recorded calls, after the context."""
        events = self.events()
        return gpu_steps(events) if self._on_gpu else cpu_steps(events)

    def events(self) -> list[Any]:
        """Kineto's events, after the context."""
        assert self._profile.profiler is not None
        return list(self._profile.profiler.kineto_results.events())  # type: ignore[union-attr]

    def export(self, path: Path) -> None:
        """Writes the events as a Chrome trace, uncompressed. A full disk leaves a part of it."""
        self._profile.export_chrome_trace(str(path))


class ProfiledPhases:
    """Marks that name the phases of a step in the profile, each from the mark before it."""

    def __init__(self, fetches: int) -> None:
        self._next = iter((*(DATA, FORWARD_BACKWARD) * fetches, OPTIMIZER))
        self._open: Any = None
        self._turn()

    def mark(self) -> None:
        self._open.__exit__(None, None, None)
        self._turn()

    def _turn(self) -> None:
        name = next(self._next, None)
        if name:
            self._open = record_function(name)
            self._open.__enter__()


def cpu_steps(events: Sequence[Any]) -> list[StepTimeline]:
    """The steps in kineto's events, on the thread that trains."""
    thread = next((event.start_thread_id() for event in events if event.name() == STEP), None)
    here = [event for event in events if event.start_thread_id() == thread and not event.is_async()]
    flying = [
        event
        for event in events
        if event.name().startswith(IN_FLIGHT) and (event.is_async() or event.start_thread_id() != thread)
    ]
    calls = [event for event in here if event.name().startswith(CALLS)]
    waits = [event for event in here if event.name() == WAIT]
    called = union(map(span, [*calls, *waits]))
    operators = [event for event in here if not event.is_user_annotation() or event.name().startswith(COMPUTED)]
    return cut(
        [span(event) for event in here if event.name() == STEP],
        data=spans(here, DATA),
        optimizer=spans(here, OPTIMIZER),
        compute=difference(union(map(span, operators)), called),
        communication=union(called, map(span, flying)),
        issues=[(event.name(), event.start_ns()) for event in calls if "wait" not in event.name()],
    )


def gpu_steps(events: Sequence[Any]) -> list[StepTimeline]:
    """The steps in kineto's events, on the device, cut where an event on its stream would be reached.

    A step begins when the device has done what was launched before it, or the host begins it, whichever is later; the
    next one ends it. While its batch is made, a device that does nothing waits for data. What belongs to a step or
    a phase follows from when the host launched it. The ranges that kineto itself draws on the device do not say: there
    is one a stream, without what a range inside it, or autograd's thread, launched.
    Raises RuntimeError where a step shows nothing on the device.
    """
    host = [event for event in events if event.device_type() == DeviceType.CPU]
    device = [event for event in events if event.device_type() == DeviceType.CUDA and not event.is_user_annotation()]
    kernels = [event for event in device if not event.name().startswith(COPIES)]
    nccl = [event for event in kernels if KERNELS_OF_NCCL.match(event.name())]
    others = [event for event in kernels if not KERNELS_OF_NCCL.match(event.name())]
    launches = launched(host, device)
    steps = [span(event) for event in sorted(host, key=start) if event.name() == STEP]
    if not all(reach(launches, step) for step in steps):
        raise RuntimeError(
            "the profiler saw nothing of a step on the GPU: CUPTI is missing, or another profiler has it"
        )
    done = list(accumulate((end for _, (_, end) in launches), max))
    borders = [done_at(launches, done, begin) for begin, _ in steps]
    borders += [done_at(launches, done, end) for _, end in steps[-1:]]
    making = spans(host, DATA)
    made = [
        (max(begin, border), end)
        for step, border in zip(steps, borders, strict=False)
        for begin, end in intersection(making, [step])
    ]
    return cut(
        list(pairwise(borders)),
        data=union(reached(launches, host, DATA), difference(union(made), union(map(span, device)))),
        optimizer=union(reached(launches, host, OPTIMIZER)),
        compute=union(map(span, others)),
        communication=union(map(span, nccl)),
        issues=[(event.name().partition("(")[0], event.start_ns()) for event in nccl],
    )


def launched(host: Sequence[Any], device: Sequence[Any]) -> list[tuple[int, Interval]]:
    """When the host launched what ran on the device, and when that ran; in the order of launches.

    CUPTI gives a kernel the correlation id of the call that launched it. Where that call was not traced, the operator
    that made it stands for it; where there is none either, the kernel is left out.
    """
    calls = {event.correlation_id(): event.start_ns() for event in host if LAUNCH.match(event.name())}
    operators = {event.correlation_id(): event.start_ns() for event in host if not LAUNCH.match(event.name())}
    launches = []
    for event in device:
        at = calls.get(event.correlation_id()) or operators.get(event.linked_correlation_id() or None)
        if at is not None:
            launches.append((at, span(event)))
    return sorted(launches)


def done_at(launches: Sequence[tuple[int, Interval]], done: Sequence[int], moment: int) -> int:
    """When the device had done all that was launched before a moment of the host, or that moment, if it is later.

    ``done`` has the last end of each launch and those before it.
    """
    before = bisect_left(launches, moment, key=first)
    return max(moment, done[before - 1]) if before else moment


def reach(launches: Sequence[tuple[int, Interval]], during: Interval) -> Interval | None:
    """From the first begin to the last end, on the device, of what was launched ``during`` a range of the host."""
    inside = launches[bisect_left(launches, during[0], key=first) : bisect_right(launches, during[1], key=first)]
    return (min(begin for _, (begin, _) in inside), max(end for _, (_, end) in inside)) if inside else None


def reached(launches: Sequence[tuple[int, Interval]], host: Sequence[Any], name: str) -> Iterator[Interval]:
    """The reach of each range of the host that is called ``name``."""
    for event in host:
        if event.name() == name and (interval := reach(launches, span(event))):
            yield interval


def first(launch: tuple[int, Interval]) -> int:
    return launch[0]


def start(event: Any) -> int:
    at: int = event.start_ns()
    return at


def span(event: Any) -> Interval:
    return event.start_ns(), event.end_ns()


def spans(events: Sequence[Any], name: str) -> Intervals:
    return union(span(event) for event in events if event.name() == name)


def cut(
    steps: Sequence[Interval],
    *,
    data: Intervals,
    optimizer: Intervals,
    compute: Intervals,
    communication: Intervals,
    issues: list[Issue],
) -> list[StepTimeline]:
    """Each step's share of what happened."""
    issues = sorted(issues, key=lambda issue: issue[1])
    return [
        StepTimeline(
            interval=step,
            data=intersection(data, [step]),
            optimizer=intersection(optimizer, [step]),
            compute=intersection(compute, [step]),
            communication=intersection(communication, [step]),
            issues=[issue for issue in issues if step[0] <= issue[1] < step[1]],
        )
        for step in sorted(steps)
    ]


def skews(of_ranks: Sequence[Sequence[Issue]], rank: int) -> Intervals | None:
    """While ``rank`` had called a collective of a step and another rank had not yet.

    Calls are matched across ranks by their order. None where ranks do not call the same kinds in the same
    order, so that it cannot be determined.
    """
    kinds = [[kind for kind, _ in issues] for issues in of_ranks]
    if any(other != kinds[0] for other in kinds):
        return None
    last = [max(times) for times in zip(*([at for _, at in issues] for issues in of_ranks), strict=True)]
    return union(zip((at for _, at in of_ranks[rank]), last, strict=True))


def parts(step: StepTimeline, skew: Intervals, step_s: float) -> StepParts:
    """The parts of one step; ``skew`` is when its collectives waited for another rank to call them."""
    whole = [step.interval]
    left = difference(whole, step.data)
    bare = difference(intersection(left, step.communication), step.compute)
    late = intersection(bare, skew)
    left = difference(left, bare)
    update = intersection(left, step.optimizer)
    left = difference(left, update)
    computed = intersection(left, step.compute)
    return StepParts(
        step_s=step_s,
        compute_s=total(computed) / 1e9,
        exposed_s=total(difference(bare, late)) / 1e9,
        straggler_s=total(late) / 1e9,
        optimizer_s=total(update) / 1e9,
        data_s=total(intersection(whole, step.data)) / 1e9,
        host_s=total(difference(left, computed)) / 1e9,
        communication_s=total(step.communication) / 1e9,
        overlapped_s=total(intersection(step.communication, step.compute)) / 1e9,
    )
