"""Stale synchronous parallel, in numbers: who may go on."""

from __future__ import annotations

import math
import random

import pytest

from bench.engines.parameter_server.clocks import Clocks


def push(clocks: Clocks, worker: int) -> list[int]:
    clocks.tick(worker)
    return clocks.let_go()


def test_a_bound_of_zero_is_a_barrier() -> None:
    clocks = Clocks(3, 0)
    assert [push(clocks, worker) for worker in (2, 0, 1)] == [[], [], [2, 0, 1]]
    assert clocks.largest_lead == 0


def test_a_worker_may_be_ahead_by_the_bound_and_no_more() -> None:
    clocks = Clocks(2, 2)
    assert [push(clocks, 0) for _ in range(3)] == [[0], [0], []]
    assert push(clocks, 1) == [0, 1]
    assert clocks.largest_lead == 2


def test_without_a_bound_no_worker_waits() -> None:
    clocks = Clocks(2, math.inf)
    assert [push(clocks, 0) for _ in range(50)] == [[0]] * 50
    assert clocks.largest_lead == 50


def test_no_worker_waits_for_one_that_has_left() -> None:
    clocks = Clocks(3, 0)
    assert push(clocks, 0) == push(clocks, 1) == []
    clocks.leave(2)
    assert clocks.let_go() == [0, 1]
    assert (clocks.present, clocks.waiting) == (2, 0)


@pytest.mark.parametrize("bound", [0, 1, 3])
def test_whoever_is_next_some_worker_can_always_go_on_within_the_bound(bound: int) -> None:
    """Any order of arrival, each worker with 20 gradients: it never comes to a stop, and the lead reaches the bound."""
    order = random.Random(bound)
    clocks = Clocks(4, bound)
    left = dict.fromkeys(range(4), 20)
    running = set(left)
    while running:
        worker = order.choice(sorted(running)) if order.random() < 0.3 else min(running)
        if left[worker]:
            left[worker] -= 1
            clocks.tick(worker)
        else:
            clocks.leave(worker)
        running.discard(worker)
        running.update(clocks.let_go())
    assert clocks.present == clocks.waiting == 0
    assert clocks.largest_lead == bound
