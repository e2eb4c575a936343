"""What computation hides of communication follows the recurrence over buckets."""

import pytest

from analysis.projection.schedule import pass_s, spread
from analysis.theory.calibrated import exposed_s


@pytest.mark.parametrize("seconds", [0.5, 1.0, 1.7, 4.0])
def test_reductions_are_exposed_as_the_calibrated_workload_says(seconds):
    layers, ready = 5, [1.0, 2.0, 3.0, 4.0, 5.0]
    total = pass_s([1.0] * layers, [0.0] * layers, [seconds] * layers, overlap=True)
    assert total == pytest.approx(5.0 + exposed_s(ready, [seconds] * layers))


def test_without_overlap_everything_adds_up():
    assert pass_s([1.0, 2.0], [0.5, 0.5], [0.25, 0.25], overlap=False) == 4.5


def test_a_prefetched_gather_overlaps_the_segment_before_it():
    assert pass_s([1.0] * 3, [0.4] * 3, [0.0] * 3, overlap=True) == pytest.approx(3.4)
    assert pass_s([1.0] * 3, [1.5] * 3, [0.0] * 3, overlap=True) == pytest.approx(3 * 1.5 + 1.0)


def test_gathers_and_reductions_share_one_channel():
    # gather 0..1; segment 0 from 1 to 2 during gather 1; reduce 0 from 2 to 3; segment 1 from 2 to 3; reduce 1
    assert pass_s([1.0, 1.0], [1.0, 1.0], [1.0, 1.0], overlap=True) == pytest.approx(4.0)


def test_hidden_communication_slows_computation_by_its_contention():
    # segments 2 to 5 each run for 0.5 s at the rate 0.8, so each takes 0.1 s more; the last reduction is exposed
    total = pass_s([1.0] * 5, [0.0] * 5, [0.5] * 5, overlap=True, contention=0.2)
    assert total == pytest.approx(5.0 + 4 * 0.1 + 0.5)


def test_contention_costs_nothing_where_communication_is_the_longer():
    # segments 2 to 5 run at half speed and end at 9 s, while collectives run from 1 to 21 s
    assert pass_s([1.0] * 5, [0.0] * 5, [4.0] * 5, overlap=True, contention=0.5) == pytest.approx(21.0)


def test_full_contention_is_no_overlap():
    for gathers, reductions in ((0.0, 0.7), (0.4, 0.0), (0.3, 0.6)):
        passes = [[1.0] * 4, [gathers] * 4, [reductions] * 4]
        assert pass_s(*passes, overlap=True, contention=1.0) == pytest.approx(pass_s(*passes, overlap=False))


def test_a_prefetched_gather_slows_the_segment_it_overlaps():
    assert pass_s([1.0] * 3, [0.4] * 3, [0.0] * 3, overlap=True, contention=0.5) == pytest.approx(3.4 + 2 * 0.2)


@pytest.mark.parametrize(
    ("values", "segments", "expected"),
    [([1.0, 2.0], 2, [1.0, 2.0]), ([1.0, 2.0], 4, [1.0, 0.0, 2.0, 0.0]), ([1.0, 2.0, 4.0], 2, [3.0, 4.0])],
)
def test_collectives_are_spread_over_segments_and_none_is_lost(values, segments, expected):
    assert spread(values, segments) == expected
