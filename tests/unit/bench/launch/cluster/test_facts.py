"""Offsets of clocks are exact to within half of the round trip, whichever way took longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.launch.cluster import facts
from bench.launch.cluster.facts import ClockReading


@pytest.mark.parametrize(("there_s", "back_s"), [(0.001, 0.001), (0.004, 0.0), (0.0, 0.004)])
def test_the_true_offset_lies_within_the_bound(there_s: float, back_s: float) -> None:
    wall, monotonic = 5.0, 100.0  # the host's clocks minus the coordinator's
    before = ClockReading(1000.0, 50.0)
    there = ClockReading(1000.0 + there_s + wall, 50.0 + there_s + monotonic)
    after = ClockReading(1000.0 + there_s + back_s, 50.0 + there_s + back_s)
    offset = facts.offset(before, there, after)
    assert offset.bound_s == pytest.approx((there_s + back_s) / 2)
    assert abs(offset.wall_s - wall) <= offset.bound_s + 1e-9
    assert abs(offset.monotonic_s - monotonic) <= offset.bound_s + 1e-9


def test_a_host_reports_its_free_disk(tmp_path: Path) -> None:
    reported = facts.collect(tmp_path)
    assert reported.disk_free_bytes > 0 and reported.shared_memory_free_bytes > 0
