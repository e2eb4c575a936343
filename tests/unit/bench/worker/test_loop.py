"""The training loop: when its ranks synchronize, and which part of a step an interval belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.measure.time.timeline import DATA, FORWARD_BACKWARD, OPTIMIZER, ProfiledPhases
from bench.worker import loop
from bench.worker.feed import Pool, Unread

CPU = torch.device("cpu")
WAIT_S, PASS_S, UPDATE_S = 1.0, 10.0, 100.0


class Recorded:
    """A watch, an engine and its batches that write down what is done to them."""

    def __init__(self, done: list[str]) -> None:
        self.device = torch.device("cpu")
        self.done = done

    def __enter__(self) -> None:
        self.done.append("profiler begins")

    def __exit__(self, *error: object) -> None:
        self.done.append("profiler ends")

    def step(self, *, fetches: int = 1) -> Any:
        recorded = self

        class Step:
            def __enter__(self) -> Any:
                recorded.done.append("watched:")
                return self

            def __exit__(self, *error: object) -> None: ...

            def mark(self) -> None: ...

        return Step()

    def forward_backward(self, batch: Any, loss_fn: Any, *, sync: bool) -> torch.Tensor:
        self.done.append("step")
        return torch.zeros(())

    def optimizer_step(self) -> None: ...


class Squared:
    """An engine whose loss is a mean over much."""

    def forward_backward(self, batch: Any, loss_fn: Any, *, sync: bool) -> torch.Tensor:
        loss = torch.nn.functional.mse_loss(torch.ones(1000), torch.zeros(1000))
        assert loss.untyped_storage().nbytes() == 4000, "torch keeps what it was reduced from"
        return loss

    def optimizer_step(self) -> None: ...


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_a_loss_that_is_kept_is_one_number(micro_batches: int) -> None:
    loss = loop.train_step(Squared(), [()] * micro_batches, lambda module, batch: torch.zeros(()))
    assert (float(loss), loss.untyped_storage().nbytes()) == (1.0, 4)


def test_ranks_synchronize_after_their_profilers_have_begun_and_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profiler takes a second to begin, on some ranks longer: else the first step would hold the difference."""
    done: list[str] = []
    recorded = Recorded(done)
    monkeypatch.setattr(loop, "wait_for_all", lambda device: done.append("barrier"))
    loop.profiled_steps(
        recorded,
        lambda step: [()],
        2,
        lambda module, batch: torch.zeros(()),
        recorded,
        drain=lambda: done.append("drain"),
    )
    settling = ["step"] * loop.SETTLING_STEPS
    assert done == ["profiler begins", *settling, "drain", "barrier", *["watched:", "step"] * 2, "profiler ends"]


class Timed:
    """An engine, a loader and a clock, whose parts take set times, and what they do in order."""

    def __init__(self, accumulate: int) -> None:
        self.waits_per_step = accumulate
        self.now_s = 0.0
        self.marks_s: list[float] = []
        self.done: list[str] = []

    def _takes(self, what: str, seconds: float) -> None:
        self.done.append(what)
        self.now_s += seconds

    def take(self, step: int) -> Unread:
        return Unread(self.waits_per_step, self._read)

    def _read(self) -> tuple[()]:
        self._takes("read", WAIT_S)
        return ()

    def drain(self) -> None:
        self.done.append("drain")

    def forward_backward(self, batch: Any, loss_fn: Any, *, sync: bool) -> torch.Tensor:
        self._takes("pass, synchronized" if sync else "pass", PASS_S)
        return torch.zeros(())

    def optimizer_step(self) -> None:
        self._takes("update", UPDATE_S)

    def mark(self) -> None:
        self.marks_s.append(self.now_s)

    def intervals_s(self) -> list[float]:
        return [after - before for before, after in zip(self.marks_s, self.marks_s[1:], strict=False)]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    def make(accumulate: int) -> Any:
        made = Timed(accumulate)
        monkeypatch.setattr(loop, "wait_for_all", lambda device: made.done.append("barrier"))
        monkeypatch.setattr(loop, "marks", lambda device: made)
        return made

    return make


def no_loss(module: Any, batch: Any) -> torch.Tensor:
    return torch.zeros(())


@pytest.mark.parametrize("accumulate", [1, 3])
def test_micro_batches_are_read_one_by_one_and_their_waits_add_up(timed: Callable[[int], Any], accumulate: int) -> None:
    """As in training: a DataLoader that is emptied before the first forward would read on while nothing trains."""
    made = timed(accumulate)
    steps = loop.timed_steps(made, made, 2, no_loss, CPU, begin=lambda: made.done.append("begin"))
    turns = [*["read", "pass"] * (accumulate - 1), "read", "pass, synchronized", "update"]
    assert made.done == ["barrier", "drain", "begin", "barrier", *turns * 2]
    assert steps.data_s == [accumulate * WAIT_S] * 2
    assert steps.forward_backward_s == [accumulate * PASS_S] * 2
    assert steps.optimizer_s == [UPDATE_S] * 2


def test_a_step_on_a_pool_has_two_marks(timed: Callable[[int], Any]) -> None:
    made = timed(3)
    steps = loop.timed_steps(made, Pool([[()] * 3]), 2, no_loss, CPU)
    assert len(made.marks_s) == 1 + 2 * 2
    assert (steps.data_s, steps.forward_backward_s, steps.optimizer_s) == ([], [3 * PASS_S] * 2, [UPDATE_S] * 2)


def test_each_wait_of_a_profiled_step_is_data() -> None:
    phases = ProfiledPhases(2)
    names = []
    for _ in range(5):
        names.append(phases._open.name)
        phases.mark()
    assert names == [DATA, FORWARD_BACKWARD, DATA, FORWARD_BACKWARD, OPTIMIZER]
