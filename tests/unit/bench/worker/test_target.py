"""Blocks of steps until the target loss."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from bench.worker import target
from bench.worker.loop import TimedSteps


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
