"""Every block of memory that torch's allocator handed out during a profile, and what each was for.

The profiler reports allocations and releases with their addresses, and operators with the storages that they are
given. A *label* is such an operator, or one of our own (``label``), that says what the blocks behind its tensors are
for. A block has one kind in all its life, the first of ``KINDS`` that any label gave it; without a label it is

    activations   made in forward of this step (outside autograd's nodes) and alive when a node of backward begins
    temporaries   any other that was made in this step
    other         there before the step

Tensors that share storage are one block. Reads torch's event tree, which is not public.

A release on a thread that the profiler does not watch is not reported: gloo's, where such a thread is the last to let
go of a collective's tensors. A block without a release is taken to be gone at the first step that begins after its
last label; what is still there has one, since every tensor that Python can reach is labelled as a step begins, and
what only C++ holds (DDP's buckets) by the collectives that use it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any

from torch import Tensor
from torch._C._profiler import _EventType, _RecordFunctionFast, _TensorMetadata
from torch.profiler import profile

KINDS = (
    *("params", "master", "grads", "optimizer", "buffers", "host"),
    *("batch", "gathered", "unreduced", "communication", "activations", "temporaries", "other", "unseen"),
)
"""In the order in which a block that could be several things is counted (docs/explanation/memory.md defines them)."""

PREFIX = "bench.memory."
STEP = f"{PREFIX}step"
PHASES = {f"{PREFIX}{phase}": phase for phase in ("forward", "update")}
BACKWARD_NODE = "autograd::engine::evaluate_function"
LABELLING = {"torch::autograd::AccumulateGrad": "unreduced"} | {PREFIX + kind: kind for kind in KINDS}
COLLECTIVE = ("c10d::", "gloo:", "nccl:", "engine::")


@dataclass(frozen=True)
class Event:
    """One thing that happened, at ``time_ns`` of the profiler's clock."""

    time_ns: int
    what: str
    """``allocate``, ``release``, ``label``; ``begin`` and ``end`` of a step, in it ``forward``, ``node`` of backward
    and ``update`` as each begins."""
    address: int = 0
    size: int = 0
    kind: str = ""
    """What a label says, or that an allocation was made inside a collective."""
    in_backward: bool = False
    """Whether an allocation was made inside a node of backward."""


@dataclass
class Allocation:
    """From one allocation to its release; times are positions in the order of events."""

    size: int
    start: int
    end: float = inf
    kind: str = ""
    labelled: int = -1
    """When it last was."""
    release_seen: bool = False


@dataclass
class Step:
    """A step that was watched."""

    start: int
    end: float = inf
    phases: list[tuple[int, str]] = field(default_factory=list)
    """When ``forward`` (of each micro-batch), ``backward`` and ``update`` began."""
    rest_bytes: int = 0
    peak_bytes: int = 0
    peak_at: int = 0
    """The first moment of its largest memory."""

    @property
    def peak_phase(self) -> str:
        return next(phase for at, phase in reversed(self.phases) if at <= self.peak_at)


@dataclass
class Trace:
    """The allocations over time."""

    blocks: list[Allocation] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    times_ns: list[int] = field(default_factory=list)
    """Of each event, by its position, on the profiler's clock."""

    def rest_by_kind(self, step: Step) -> dict[str, int]:
        """Bytes that were there when the step began; they add up to ``step.rest_bytes``."""
        return self._by_kind(step, step.start)

    def peak_by_kind(self, step: Step) -> dict[str, int]:
        """Bytes at the step's peak; they add up to ``step.peak_bytes``."""
        return self._by_kind(step, step.peak_at)

    def largest_together(self, kinds: Collection[str]) -> dict[str, int]:
        """Bytes by kind at the first moment of the last step at which blocks of ``kinds`` take most memory together;
        without a label, a block of the step is of the kind ``temporaries``."""
        step = self.steps[-1]
        members = [(self.kind_in(step, block), block) for block in self.blocks]
        members = [(kind, block) for kind, block in members if kind in kinds and block.end > step.start]
        at, most = step.start, 0
        for when, size in running_sum(block for _, block in members):
            if step.start <= when < step.end and size > most:
                at, most = int(when), size
        sizes = dict.fromkeys(kinds, 0)
        for kind, block in members:
            if block.start <= at < block.end:
                sizes[kind] += block.size
        return sizes

    def _by_kind(self, step: Step, at: int) -> dict[str, int]:
        bytes_by_kind = dict.fromkeys(KINDS, 0)
        for block in self.blocks:
            if block.start <= at < block.end:
                bytes_by_kind[self.kind_in(step, block)] += block.size
        return {kind: size for kind, size in bytes_by_kind.items() if size}

    def kind_in(self, step: Step, block: Allocation) -> str:
        """The kind of a block in ``step``."""
        earlier = block.start < step.start
        kind = "" if earlier and block.kind == "activations" else block.kind
        return kind or ("other" if earlier else "temporaries")

    def end_unreleased(self) -> None:
        """Ends blocks whose release was not seen at the first step that begins after their last label."""
        for block in self.blocks:
            if not block.release_seen:
                last_label = max(block.start, block.labelled)
                block.end = min([block.end, *(step.start for step in self.steps if step.start > last_label)])

    def add_up(self) -> None:
        """Fills in each step's memory at rest and at its peak."""
        changes = list(running_sum(self.blocks))
        for step in self.steps:
            before = bisect_right(changes, (step.start, inf))
            step.rest_bytes = step.peak_bytes = changes[before - 1][1] if before else 0
            step.peak_at = step.start
            for at, total in changes[before : bisect_left(changes, (step.end, 0))]:
                if total > step.peak_bytes:
                    step.peak_bytes, step.peak_at = total, int(at)


def running_sum(blocks: Iterable[Allocation]) -> Iterator[tuple[float, int]]:
    """Bytes in use after each allocation and release, in order."""
    total = 0
    for at, size in sorted(
        change for block in blocks for change in ((block.start, block.size), (block.end, -block.size))
    ):
        total += size
        yield at, total


class Reader:
    """Goes through events in order and keeps what is alive."""

    def __init__(self) -> None:
        self._trace = Trace()
        self._alive: dict[int, Allocation] = {}
        self._step: Step | None = None
        self._fresh: list[Allocation] = []
        """Made in forward since the last node of backward."""

    def read(self, events: Iterable[Event]) -> Trace:
        for at, event in enumerate(events):
            self._trace.times_ns.append(event.time_ns)
            getattr(self, f"_{event.what}")(at, event)
        self._trace.end_unreleased()
        self._trace.add_up()
        return self._trace

    def _allocate(self, at: int, event: Event) -> None:
        if event.address in self._alive:
            self._alive[event.address].end = at
        block = Allocation(event.size, at, kind=event.kind)
        self._alive[event.address] = block
        self._trace.blocks.append(block)
        if self._step and self._step.phases[-1][1] != "update" and not event.in_backward:
            self._fresh.append(block)

    def _release(self, at: int, event: Event) -> None:
        block = self._alive.pop(event.address, None)
        if block is not None:  # else it is older than the profile
            block.end, block.release_seen = at, True

    def _label(self, at: int, event: Event) -> None:
        block = self._alive.get(event.address)
        if block is not None:
            block.labelled = at
            if not block.kind or KINDS.index(event.kind) < KINDS.index(block.kind):
                block.kind = event.kind

    def _begin(self, at: int, event: Event) -> None:
        self._step = Step(at)
        self._trace.steps.append(self._step)
        self._forward(at, event)

    def _end(self, at: int, event: Event) -> None:
        assert self._step is not None
        self._step.end, self._step = at, None

    def _forward(self, at: int, event: Event) -> None:
        assert self._step is not None
        self._step.phases.append((at, "forward"))
        self._fresh = []

    def _update(self, at: int, event: Event) -> None:
        assert self._step is not None
        self._step.phases.append((at, "update"))

    def _node(self, at: int, event: Event) -> None:
        if self._step is None:
            return
        if self._step.phases[-1][1] == "forward":
            self._step.phases.append((at, "backward"))
        for block in self._fresh:
            if block.end == inf and not block.kind:
                block.kind = "activations"
        self._fresh = []


def label(kind: str, tensors: Iterable[Tensor]) -> None:
    """Marks the kind of the blocks of ``tensors`` in a profile with ``record_shapes``."""
    with _RecordFunctionFast(PREFIX + kind, list(tensors)):
        pass


def mark(phase: str) -> None:
    """Marks the start of ``forward`` (of a micro-batch) or ``update``."""
    with _RecordFunctionFast(PREFIX + phase):
        pass


def events_of(profiled: profile, device_type: str) -> list[Event]:
    """The events of a finished profile, with ``profile_memory`` and ``record_shapes``, on devices of one type."""
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    events: list[Event] = []
    roots: list[Any] = profiled.profiler.kineto_results.experimental_event_tree()
    pending = [(node, False, "") for node in roots]
    while pending:
        node, in_backward, kind = pending.pop()
        if node.tag == _EventType.Allocation:
            if node.extra_fields.device.type == device_type:
                events.append(_allocation(node, in_backward, kind))
            continue
        if node.tag == _EventType.TorchOp:
            name = node.name
            events.extend(_operator_events(node, name))
            in_backward = in_backward or name.startswith(BACKWARD_NODE)
            kind = "communication" if name.startswith(COLLECTIVE) else kind
        pending.extend((child, in_backward, kind) for child in node.children)
    return sorted(events, key=lambda event: event.time_ns)


def _allocation(node: Any, in_backward: bool, kind: str) -> Event:
    made = node.extra_fields
    what = "allocate" if made.alloc_size > 0 else "release"
    return Event(node.start_time_ns, what, made.ptr or 0, abs(made.alloc_size), kind, in_backward)


def _operator_events(node: Any, name: str) -> Iterator[Event]:
    kind = "communication" if name.startswith(COLLECTIVE) else LABELLING.get(name)
    if kind:
        for address in storages(node.extra_fields.inputs):
            yield Event(node.start_time_ns, "label", address, kind=kind)
    elif name == STEP:
        yield Event(node.start_time_ns, "begin")
        yield Event(node.end_time_ns, "end")
    elif name in PHASES:
        yield Event(node.start_time_ns, PHASES[name])
    elif name.startswith(BACKWARD_NODE):
        yield Event(node.start_time_ns, "node")


def storages(inputs: Any) -> Iterator[int]:
    """Addresses of the storages behind an operator's recorded inputs, lists of tensors among them."""
    if isinstance(inputs, _TensorMetadata):
        if inputs.storage_data_ptr:
            yield inputs.storage_data_ptr
    elif isinstance(inputs, list | tuple):
        for entry in inputs:
            yield from storages(entry)
