"""What a step's memory is for, on cases whose bytes are known."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.measure.memory.allocations import Event, Reader
from bench.measure.memory.other_threads import wait_for_other_threads
from bench.measure.memory.step import StepMemory, completed, reachable, state_bytes, stored

CPU = torch.device("cpu")
ROWS, INPUTS, OUTPUTS = 64, 512, 256
WEIGHT = 4 * INPUTS * OUTPUTS
BATCH = 4 * ROWS * INPUTS
OUTPUT = 4 * ROWS * OUTPUTS
LOSS = 4


def events(*entries: tuple[str, int, int] | tuple[str, int, int, str] | str) -> list[Event]:
    """Events a nanosecond apart; each is (what, address, size, kind or nothing), or only what."""
    return [
        Event(at, entry) if isinstance(entry, str) else Event(at, entry[0], entry[1], entry[2], *entry[3:])
        for at, entry in enumerate(entries)
    ]


def test_a_block_is_what_the_first_of_its_kinds_says_and_counts_once() -> None:
    trace = Reader().read(
        events(
            ("allocate", 1, 100),
            "begin",
            ("label", 1, 0, "other"),
            ("label", 1, 0, "communication"),
            ("allocate", 2, 10),
            ("label", 2, 0, "unreduced"),
            ("allocate", 3, 1),
            ("release", 2, 10),
            ("label", 1, 0, "params"),
            "end",
        )
    )
    (step,) = trace.steps
    assert (step.rest_bytes, trace.rest_by_kind(step)) == (100, {"params": 100})
    assert (step.peak_bytes, trace.peak_by_kind(step)) == (111, {"params": 100, "unreduced": 10, "temporaries": 1})


def test_activations_are_what_forward_leaves_for_backward() -> None:
    backward_allocation = Event(9, "allocate", 5, 5, in_backward=True)
    trace = Reader().read(
        [
            *events("begin", "forward", ("allocate", 1, 100), ("allocate", 2, 30), ("release", 2, 30), "node"),
            backward_allocation,
            *events("update", ("allocate", 6, 7), ("release", 1, 100), ("allocate", 7, 90), "end"),
        ]
    )
    (step,) = trace.steps
    assert (step.peak_bytes, step.peak_phase) == (130, "forward")
    assert trace.peak_by_kind(step) == {"activations": 100, "temporaries": 30}
    assert trace.largest_together(["activations"]) == {"activations": 100}


def test_what_backward_leaves_is_no_activation_of_the_next_micro_batch() -> None:
    steps = ["begin", "forward", "node", ("allocate", 1, 50), "forward", ("allocate", 2, 8), "node", "end"]
    trace = Reader().read(events(*steps))  # type: ignore[arg-type]
    assert trace.peak_by_kind(trace.steps[0]) == {"temporaries": 50, "activations": 8}


def test_a_reused_address_ends_the_block_that_was_there() -> None:
    trace = Reader().read(events(("allocate", 1, 100), ("allocate", 1, 30), "begin", ("label", 1, 0, "other"), "end"))
    assert trace.steps[0].rest_bytes == 30


def test_a_block_whose_release_was_not_seen_ends_with_its_step() -> None:
    trace = Reader().read(
        events(
            *("begin", ("allocate", 1, 100), ("label", 1, 0, "communication"), "end"),
            *("begin", ("allocate", 2, 30), ("label", 2, 0, "communication"), "end"),
            *("begin", ("label", 2, 0, "communication"), "end"),
        )
    )
    assert [step.rest_bytes for step in trace.steps] == [0, 0, 30]
    assert [step.peak_bytes for step in trace.steps] == [100, 30, 30]


@pytest.fixture
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def train(counter: StepMemory, model: nn.Linear, optimizer: torch.optim.SGD, batch: Tensor) -> None:
    """One step of plain data parallelism: gradients are copied into a bucket, which is reduced."""
    weight = [model.weight]

    def state() -> dict[str, list[Tensor]]:
        grads = [entry.grad for entry in weight if entry.grad is not None]
        return {
            "params": list(weight),
            "grads": grads,
            "optimizer": [moments["momentum_buffer"] for moments in optimizer.state.values()],
        }

    wait_for_other_threads()
    with counter.step(state(), [batch]):
        counter.forward()
        loss = model(batch).square().sum()
        loss.backward()
        assert model.weight.grad is not None
        bucket = model.weight.grad.clone()
        dist.all_reduce(bucket)
        model.weight.grad.copy_(bucket)
        del bucket
        counter.between(state())
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.usefixtures("alone")
def test_every_category_of_a_hand_made_model_is_exact() -> None:
    """At rest weight, momentum and batch. At the peak the gradient and the bucket too, and of forward only the loss;
    before that, forward had left its output."""
    counter = StepMemory(CPU)
    with counter:
        model = nn.Linear(INPUTS, OUTPUTS, bias=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=False)
        batch = torch.randn(ROWS, INPUTS)
        for _ in range(3):
            train(counter, model, optimizer, batch)
    memory = counter.result()
    at_rest = {"params": WEIGHT, "optimizer": WEIGHT, "batch": BATCH}
    assert memory.rest_by_kind == at_rest
    assert memory.peak_by_kind == at_rest | {"grads": WEIGHT, "communication": WEIGHT, "activations": LOSS}
    assert (memory.rest_bytes, memory.peak_bytes) == (2 * WEIGHT + BATCH, 4 * WEIGHT + BATCH + LOSS)
    assert memory.peak_phase == "backward"
    assert memory.state_bytes == {"params": WEIGHT, "grads": WEIGHT, "optimizer": WEIGHT}
    seed = LOSS  # what backward begins with is made outside its nodes
    assert counter.trace.largest_together(["activations"]) == {"activations": OUTPUT + LOSS + seed}


def test_a_release_on_a_thread_that_the_profiler_does_not_watch_is_not_counted_against_later_steps() -> None:
    counter = StepMemory(CPU)
    with counter:
        for _ in range(2):
            with counter.step({}, []):
                counter.forward()
                box = [torch.zeros(1 << 20)]
                releasing = threading.Thread(target=box.clear)
                releasing.start()
                releasing.join()
    assert any(block.size == 1 << 22 and not block.release_seen for block in counter.trace.blocks)
    assert [step.rest_bytes for step in counter.trace.steps] == [0, 0]
    assert [step.peak_bytes for step in counter.trace.steps] == [1 << 22] * 2


def test_what_is_allocated_without_use_stays_counted() -> None:
    counter = StepMemory(CPU)
    with counter:
        kept = torch.zeros(1000)
        for _ in range(2):
            with counter.step({}, []):
                counter.forward()
    assert [step.rest_bytes for step in counter.trace.steps] == [kept.nbytes] * 2
    assert counter.result().rest_by_kind == {"other": kept.nbytes}
    assert any(tensor is kept for tensor in reachable("cpu"))


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_a_sparse_constant_is_seen_by_its_parts(layout: torch.layout) -> None:
    counter = StepMemory(CPU)
    with counter:
        kept = torch.eye(1000).to_sparse(layout=layout)
        for _ in range(2):
            with counter.step({}, []):
                counter.forward()
    parts = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in stored(kept)}
    assert counter.result().rest_by_kind == {"other": sum(parts.values())}
    assert state_bytes({"buffers": [kept]}) == {"buffers": sum(parts.values())}


def test_what_the_profiler_missed_of_the_allocators_counter_is_a_kind_of_its_own() -> None:
    assert completed({"params": 5}, 5) == {"params": 5}
    assert completed({"params": 5}, 7) == {"params": 5, "unseen": 2}
    assert completed({"params": 5}, 4) == {"params": 5, "unseen": -1}
