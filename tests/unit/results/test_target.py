"""Steps and time to the target loss, against sums by hand."""

from __future__ import annotations

import dataclasses
import math

from results.launches import Launch
from results.target import WINDOW, Reached, reached
from results.updates import Updates
from tests.fakes import launch


def trained(*losses: list[float]) -> Launch:
    """Losses by rank; each step took 0.5 s on rank 0 and 0.25 s on the others, after three warm-up steps."""
    made = launch(0, [[0.5 if rank == 0 else 0.25] * len(own) for rank, own in enumerate(losses)])
    ranks = [dataclasses.replace(rank, losses=own) for rank, own in zip(made.ranks, losses, strict=True)]
    return dataclasses.replace(made, ranks=ranks)


def test_the_target_is_reached_when_the_mean_of_ten_steps_of_all_ranks_is_at_most_that() -> None:
    falling = [20.0 - step for step in range(20)]  # the mean of steps k-9 to k is 20 - k + 4.5
    assert WINDOW == 10
    assert reached(trained(falling), 9.5) == Reached(3 + 16, (3 + 16) * 0.5)
    assert reached(trained(falling), 9.4) == Reached(3 + 17, (3 + 17) * 0.5)
    assert reached(trained(falling, [2 * loss for loss in falling]), 1.5 * 9.5) == Reached(19, 9.5)


def test_the_first_window_begins_after_the_warm_up_and_there_may_be_none() -> None:
    assert reached(trained([0.0] * 12), 1.0) == Reached(3 + 10, 6.5)
    assert reached(trained([0.0] * 9), 1.0) is None
    assert reached(trained([2.0] * 30), 1.0) is None
    assert reached(trained([math.nan] * 30), 1.0) is None


def test_steps_in_which_the_loss_scale_settled_are_counted() -> None:
    made = trained([0.0] * 12)
    settled = dataclasses.replace(made.ranks[0], updates=Updates(12, settling=4))
    assert reached(dataclasses.replace(made, ranks=[settled]), 1.0) == Reached(3 + 4 + 10, 17 * 0.5)


def test_ranks_that_do_not_wait_have_reached_it_by_the_clock_and_not_by_their_steps() -> None:
    made = trained([4.0] * 8 + [0.0] * 4, [4.0] * 14 + [0.0] * 10)  # rank 1 takes two steps in one of rank 0
    warmup_s = 3 * 0.375  # the median of 12 steps of 0.5 s and 12 of 0.25 s
    # 4.75 s: rank 0 has no ten steps yet; 5 s: 3.2 and, with 20 steps, 1.6; 5.5 s: 2.8 and, with 22 steps, 0.8
    assert reached(made, 2.41, synchronous=False) == Reached(3 + (10 + 20) / 2, warmup_s + 5.0)
    assert reached(made, 1.81, synchronous=False) == Reached(3 + (11 + 22) / 2, warmup_s + 5.5)
    assert reached(made, 0.1, synchronous=False) is None


def test_what_ranks_sent_to_each_other_ends_a_launch_and_so_counts() -> None:
    """Rank 0's steps 11 to 20 have a mean of 0.29, and its later ones are worse; rank 1 ends its tenth at 0.31."""
    first = [9.0] * 10 + [0.29] * 10 + [0.6] * 4
    made = trained([0.31] * 10, first)  # rank 1 takes two steps in one of rank 0, so 20 by then
    assert reached(made, 0.30, synchronous=False) == Reached(3 + (10 + 20) / 2, 3 * 0.25 + 5.0)
    late = dataclasses.replace(made.ranks[1], losses=first, forward_backward_s=[0.2] * 24, optimizer_s=[0.0] * 24)
    ahead = dataclasses.replace(made, ranks=[made.ranks[0], late])
    outcome = reached(ahead, 0.30, synchronous=False)  # rank 0 has taken 24: its last ten are at 0.414
    assert outcome is not None and outcome.steps == 3 + (10 + 24) / 2


def test_a_delay_that_another_rank_waits_for_counts_once() -> None:
    """Rank 0 is late by 1 s in the update of step 1; rank 1 waits for that in step 2."""
    made = trained([0.0] * 10, [0.0] * 10)
    steps = [[1.25, *[0.25] * 9], [0.25, 1.25, *[0.25] * 8]]
    ranks = [
        dataclasses.replace(rank, forward_backward_s=own, optimizer_s=[0.0] * 10, warmup_step_s=[])
        for rank, own in zip(made.ranks, steps, strict=True)
    ]
    assert reached(dataclasses.replace(made, ranks=ranks), 1.0) == Reached(10, 3.5)
