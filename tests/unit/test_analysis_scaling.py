"""Scaling efficiency: its baseline, its interval, its cap, and what is never ranked."""

from __future__ import annotations

import math

import pytest

from analysis.scaling import Efficiency, cap, efficiencies
from bench.record import Record
from tests.unit.test_analysis_fakes import GPU, bare, cell, launch, sweep


def timed(gpus: int, *step_s: float, **changes: object) -> Record:
    """A cell with one launch of two equal steps per given step time."""
    launches = [launch(at, [[step] * 2] * gpus) for at, step in enumerate(step_s)]
    return cell(0, gpus, launches, **changes)


def only(found: Efficiency | None) -> Efficiency:
    assert found is not None
    return found


def test_weak_scaling_efficiency_by_hand() -> None:
    one, two = timed(1, 0.010), timed(2, 0.0125)  # 6,400/s on one rank, 10,240/s on two
    found = [only(entry) for entry in efficiencies([one, two])]
    assert [entry.interval.value for entry in found] == pytest.approx([1.0, 0.8])
    assert [entry.baseline_gpus for entry in found] == [1, 1]


def test_strong_scaling_has_the_same_definition() -> None:
    one, two = timed(1, 0.010, scaling="strong"), timed(2, 0.008, scaling="strong")
    two.resolved["global_batch"] = 64
    assert only(efficiencies([one, two])[1]).interval.value == pytest.approx(0.010 / 0.008 / 2)


def test_the_baseline_is_the_smallest_world_that_ended_ok() -> None:
    failed = bare("failed", "it broke")
    wrong = timed(2, 0.01, status="parity_failed")
    found = efficiencies([failed, wrong, timed(4, 0.01), timed(8, 0.02)])
    assert found[:2] == [None, None]
    assert only(found[3]).baseline_gpus == 4
    assert only(found[3]).interval.value == pytest.approx(0.5)


def test_cells_that_differ_in_another_knob_or_in_hardware_are_not_compared() -> None:
    other = timed(2, 0.01, precision="bf16")
    elsewhere = timed(2, 0.01)
    elsewhere.environment = elsewhere.environment | {"cpu_model": "another"}
    found = [only(entry) for entry in efficiencies([timed(1, 0.01), other, elsewhere])]
    assert [entry.baseline_gpus for entry in found] == [1, 2, 2]


def test_how_a_sweep_was_tracked_and_repeated_makes_no_other_cell() -> None:
    again = timed(2, 0.01, repeats=9, resume=True, tracking={"kind": "none"}, sweep_id="later")
    assert only(efficiencies([timed(1, 0.01), again])[1]).baseline_gpus == 1


def test_a_round_that_slows_both_cells_cancels() -> None:
    drift = [1.0, 1.5, 2.0, 1.2, 0.8]
    one, two = timed(1, *(0.010 * pace for pace in drift)), timed(2, *(0.0125 * pace for pace in drift))
    interval = only(efficiencies([one, two])[1]).interval
    assert (interval.low, interval.value, interval.high) == pytest.approx((0.8, 0.8, 0.8))
    two.sweep_id = "another night"
    apart = only(efficiencies([one, two])[1]).interval
    assert apart.low < 0.6 < 1.0 < apart.high


def test_only_rounds_that_both_ran_are_paired() -> None:
    one, two = timed(1, 0.010, 0.010, 0.010), timed(2, 0.0125, 0.0125, 0.0125)
    del two.launches[1]
    interval = only(efficiencies([one, two])[1]).interval
    assert interval.launches == 2
    assert interval.level == 0.5


def test_one_launch_gives_a_value_and_no_interval() -> None:
    interval = only(efficiencies([timed(1, 0.01), timed(2, 0.01)])[1]).interval
    assert interval.value == pytest.approx(1.0)
    assert math.isnan(interval.low)


def test_ranks_that_share_cores_are_capped_by_the_cores() -> None:
    one, two, eight = timed(1, 0.01), timed(2, 0.01), timed(8, 0.04)
    assert cap(two, one) == 1.0
    assert cap(eight, one) == 2 / 8
    assert cap(timed(4, 0.01), eight) == 1.0, "never above 1"


def test_the_cap_counts_threads_and_gpus() -> None:
    one, eight = timed(1, 0.01), timed(8, 0.01)
    one.resolved["threads"] = 2
    assert cap(eight, one) == (2 / 8) / 2
    for record in (one, eight):
        record.resolved["device"] = "cuda"
        record.environment = record.environment | {"gpus": [GPU] * 4}
    assert cap(eight, one) == 4 / 8
    eight.environment["gpus"] = []
    assert math.isnan(cap(eight, one)), "unknown hardware has no cap rather than a guessed one"


def test_each_stage_has_its_own_baseline() -> None:
    records = sweep()
    found = [only(entry) for entry in efficiencies(records)]
    at_one = [
        entry.interval.value for entry, record in zip(found, records, strict=True) if record.resolved["world_size"] == 1
    ]
    assert at_one == [1.0] * 4
