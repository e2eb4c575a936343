"""Statistics over launches: medians, intervals, and the level that they really attain."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from analysis.metrics import time
from analysis.statistics import medians
from tests.fakes import cell, launch


def test_the_interval_of_five_launches_is_their_range_at_94_percent() -> None:
    interval = medians.median_interval([3.0, 1.0, 2.0, 5.0, 4.0])
    assert (interval.value, interval.low, interval.high) == (3.0, 1.0, 5.0)
    assert interval.level == pytest.approx(1 - 2 / 32)
    assert interval.level_text() == "94 % (5 launches)"


def test_three_launches_reach_75_percent_which_is_printed() -> None:
    assert medians.median_interval([1.0, 2.0, 3.0]).level_text() == "75 % (3 launches)"


def test_one_launch_has_no_interval() -> None:
    interval = medians.median_interval([1.5])
    assert interval.value == 1.5
    assert np.isnan(interval.low)
    assert np.isnan(interval.high)
    assert interval.level == 0.0
    assert interval.level_text() == "no interval (1 launch)"


def test_no_launch_has_no_value() -> None:
    interval = medians.median_interval([])
    assert np.isnan(interval.value)
    assert interval.level_text() == "not measured"


def test_six_launches_are_enough_for_95_percent() -> None:
    assert medians.attainable(5) < 0.95
    assert medians.attainable(6) == 0.95


def test_intervals_are_the_same_every_time() -> None:
    samples = list(np.random.default_rng(1).lognormal(size=12))
    assert medians.median_interval(samples) == medians.median_interval(samples)


@pytest.mark.parametrize("launches", [2, 3, 5, 6, 7, 8, 10, 15])
def test_intervals_cover_the_median_as_often_as_they_say(launches: int) -> None:
    """Skewed samples with median 1. Four standard errors of 600 trials are allowed below the stated level."""
    generator = np.random.default_rng(launches)
    trials = [medians.median_interval(list(generator.lognormal(0, 1, launches))) for _ in range(600)]
    covered = np.mean([one.low <= 1 <= one.high for one in trials])
    level = trials[0].level
    assert covered >= level - 4 * (level * (1 - level) / 600) ** 0.5


@pytest.mark.parametrize("launches", [3, 5, 7, 10])
def test_paired_ratios_cover_as_often_as_they_say_and_cancel_what_is_shared(launches: int) -> None:
    generator = np.random.default_rng(launches)
    covered, paired_width, apart_width = [], [], []
    for _ in range(400):
        drift = generator.lognormal(0, 0.3, launches)
        top, bottom = (list(drift * generator.lognormal(0, 0.02, launches)) for _ in range(2))
        paired = medians.ratio_interval(top, bottom)
        apart = medians.ratio_interval(top, bottom, paired=False)
        covered.append(paired.low <= 1 <= paired.high)
        paired_width.append(paired.high - paired.low)
        apart_width.append(apart.high - apart.low)
    level = medians.attainable(launches)
    assert np.mean(covered) >= level - 4 * (level * (1 - level) / 400) ** 0.5
    assert np.median(paired_width) < 0.5 * np.median(apart_width)


def test_a_ratio_that_is_the_same_in_every_round_has_no_width() -> None:
    interval = medians.ratio_interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (interval.value, interval.low, interval.high) == (2.0, 2.0, 2.0)


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="3 and 2"):
        medians.ratio_interval([1.0, 2.0, 3.0], [1.0, 2.0])


def test_a_step_takes_as_long_as_its_slowest_rank() -> None:
    one = launch(0, [[0.010, 0.030, 0.010], [0.020, 0.010, 0.012]])
    assert time.step_time_s(one) == pytest.approx(0.020)  # slowest ranks: 20, 30, 12 ms


def test_throughput_is_units_over_total_time_and_not_a_mean_of_rates() -> None:
    record = cell(0, 2, [launch(0, [[0.1, 0.4], [0.1, 0.4]])])
    assert time.throughput_per_s(record, record.launches[0]) == pytest.approx(128 * 2 / 0.5)


def test_a_step_that_communicates_one_time_in_three_counts_a_third_in_each() -> None:
    """Steps of 10 ms, every third of 40: the median of steps would hold none of these."""
    (seen,) = [launch(0, [[0.01, 0.01, 0.04] * 3 + [0.01]])]
    assert time.step_time_s(seen) == pytest.approx(0.01)
    assert time.step_time_s(dataclasses.replace(seen, period=3)) == pytest.approx(0.02)
    assert time.step_time_s(dataclasses.replace(seen, period=50)) == pytest.approx(0.019)
