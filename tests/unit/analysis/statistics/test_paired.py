"""Paired intervals: against enumeration, and simulated under drift and heavy tails."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from analysis.statistics import paired


def test_the_distribution_of_the_signed_rank_sum_is_that_of_all_signs() -> None:
    sums = [
        sum(rank for rank, sign in zip(range(1, 8), signs, strict=True) if sign)
        for signs in itertools.product((0, 1), repeat=7)
    ]
    distribution = paired.rank_sum_distribution(7)
    assert distribution.tolist() == pytest.approx([sum(value <= at for value in sums) / 128 for at in range(29)])


def test_the_interval_is_what_the_signed_rank_test_does_not_reject() -> None:
    logs = np.random.default_rng(3).normal(0.02, 0.05, 12)
    interval = paired.ratio_interval(logs, 0.025)
    for shift, kept in ((-1e-6, False), (1e-6, True)):
        moved = logs - math.log(interval.low) - shift
        ranks = np.argsort(np.argsort(np.abs(moved))) + 1
        chance = paired.rank_sum_distribution(12)[int(ranks[moved < 0].sum())]
        assert (chance > 0.025) == kept
    assert interval.level == pytest.approx(0.95, abs=0.01) and interval.level >= 0.95


def test_ratios_are_second_over_first() -> None:
    assert paired.logs_of_ratios([1.0, 2.0], [2.0, 4.0]).tolist() == pytest.approx([math.log(2)] * 2)
    interval = paired.ratio_interval([math.log(2)] * 8, 0.01)
    assert (interval.value, interval.low, interval.high) == pytest.approx((2, 2, 2))


@pytest.mark.parametrize(("one_sided", "rounds"), [(0.01, 7), (0.025, 6), (0.01 / 36, 12)])
def test_fewer_rounds_than_it_takes_reach_less_than_the_level(one_sided: float, rounds: int) -> None:
    assert paired.least_rounds(one_sided) == rounds
    assert paired.left_out(rounds, one_sided) >= 0 > paired.left_out(rounds - 1, one_sided)
    short = paired.ratio_interval(range(rounds - 1), one_sided)
    assert short.level == pytest.approx(1 - 2 * 0.5 ** (rounds - 1)) and short.level < 1 - 2 * one_sided
    assert (short.low, short.high) == pytest.approx((1, math.exp(rounds - 2)))


def test_one_round_has_no_interval() -> None:
    assert math.isnan(paired.ratio_interval([0.1], 0.01).low)
    assert paired.ratio_interval([], 0.01).launches == 0


def noisy_pairs(kind: str, rows: int, rounds: int, seed: int) -> np.ndarray:
    """Logarithms of ratios of like code on a machine that drifts within pairs, whose order is drawn."""
    draw = np.random.default_rng(seed)
    shape = (rows, rounds)
    if kind == "normal":
        noise = draw.normal(0, 0.04, shape)
    elif kind == "heavy tails":
        noise = 0.02 * (draw.standard_t(2, shape) - draw.standard_t(2, shape))
    else:
        spikes = draw.exponential(0.5, shape) * draw.choice([0, 0, 0, 0, 0, 0, 0, 0, -1, 1], shape)
        noise = draw.normal(0, 0.03, shape) + spikes
    later = np.abs(draw.normal(0.03, 0.03, shape))  # the second launch of a pair is always slower
    return noise + draw.choice([-1, 1], shape) * later


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "spikes"])
def test_nineteen_of_twenty_intervals_hold_the_truth(kind: str) -> None:
    for rounds in (6, 20):
        intervals = [paired.ratio_interval(row + 0.05, 0.025) for row in noisy_pairs(kind, 1500, rounds, seed=rounds)]
        cover_count = sum(interval.low <= math.exp(0.05) <= interval.high for interval in intervals)
        assert cover_count / 1500 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 1500)
