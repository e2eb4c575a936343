"""The training loop: when its ranks synchronize."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.worker import loop


class Recorded:
    """A watch, an engine and its batches that write down what is done to them."""

    def __init__(self, done: list[str]) -> None:
        self.device = torch.device("cpu")
        self.done = done

    def __enter__(self) -> None:
        self.done.append("profiler begins")

    def __exit__(self, *error: object) -> None:
        self.done.append("profiler ends")

    def step(self) -> Any:
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
    loop.profiled_steps(recorded, lambda step: [()], 2, lambda module, batch: torch.zeros(()), recorded)
    settling = ["step"] * loop.SETTLING_STEPS
    assert done == ["profiler begins", *settling, "barrier", *["watched:", "step"] * 2, "profiler ends"]
