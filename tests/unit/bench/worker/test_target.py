"""Blocks of steps until the target loss."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.distributed import HashStore

from bench.worker import target
from bench.worker.loop import TimedSteps
from bench.worker.target import Notices


def took(losses: list[float], calls: list[tuple[int, int]]) -> Callable[[int, int], TimedSteps]:
    def timed(first: int, count: int) -> TimedSteps:
        calls.append((first, count))
        return TimedSteps([1.0] * count, [0.5] * count, losses[first : first + count], 1.5 * count)

    return timed


@pytest.mark.parametrize(
    ("losses", "calls", "steps"),
    [
        ([3.0] * 10 + [1.0] * 90, [(0, 10), (10, 10)], 20),
        ([3.0] * 25, [(0, 10), (10, 10), (20, 5)], 25),
        ([1.0] * 5, [(0, 5)], 5),
        ([math.nan] * 40, [(0, 10)], 10),
    ],
)
def test_it_ends_after_the_block_that_reaches_the_target_is_not_finite_or_is_the_last(
    losses: list[float], calls: list[tuple[int, int]], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "mean_over_ranks", lambda loss, device: loss)
    made: list[tuple[int, int]] = []
    done = target.steps_until(2.0, len(losses), torch.device("cpu"), took(losses, made))
    assert made == calls
    assert len(done.losses) == len(done.step_s) == steps and done.wall_s == 1.5 * steps


def losses_of(steps: int, value: float) -> list[torch.Tensor]:
    return [torch.tensor(9.0)] * (steps - 10) + [torch.tensor(value)] * 10


def test_ranks_that_do_not_wait_end_once_the_mean_of_their_last_losses_is_at_the_target() -> None:
    store = HashStore()
    first, second = (Notices(2.0, store, rank, 2) for rank in (0, 1))
    assert not first.ended(losses_of(10, 1.0))  # the other has none yet
    assert not second.ended(losses_of(10, 3.5))
    assert not first.ended([torch.tensor(0.0)] * 19)  # nor does anyone look before ten more
    assert first.ended(losses_of(20, 0.5)) and second.ended(losses_of(20, 8.0))  # either knows it from the other


@pytest.mark.parametrize("diverged", [math.nan, math.inf])
def test_ranks_that_do_not_wait_end_where_one_has_diverged(diverged: float) -> None:
    store = HashStore()
    first, second = (Notices(2.0, store, rank, 2) for rank in (0, 1))
    assert not first.ended(losses_of(10, 3.0))
    assert second.ended(losses_of(10, diverged)) and first.ended(losses_of(20, 3.0))
