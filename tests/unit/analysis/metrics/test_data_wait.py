"""The wait for data of made launches: its share of a step, its cost against a pool, and the verdict in words."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import pytest

from analysis.metrics.data_wait import COLUMNS, columns, data_waits
from analysis.report.model.content import Content
from analysis.report.sections import input_pipeline
from results.launches import Launch
from results.record import Record
from tests import fakes

ROUNDS = 6


def waiting(number: int, waits: list[float], compute_s: float = 0.01) -> Launch:
    """A launch of 4 steps, whose ranks wait ``waits`` before each."""
    made = fakes.launch(number, [[compute_s] * 4] * len(waits))
    wall_s = [4 * (wait + compute_s) for wait in waits]
    ranks = [
        replace(rank, data_s=[wait] * 4, wall_s=whole_s, loader_per_s=3200.0)
        for rank, wait, whole_s in zip(made.ranks, waits, wall_s, strict=True)
    ]
    return replace(made, ranks=ranks)


def cell(launches: list[Launch], stage: int, **settings: object) -> Record:
    record = fakes.cell(stage=stage, gpus=2, launches=launches)
    record.config |= settings
    return record


def loader(wait_s: float, stage: int = 0) -> Record:
    launches = [waiting(number, [0.0, wait_s]) for number in range(ROUNDS)]
    return cell(launches, stage, data="loader", loader={"workers": 4, "prefetch": None, "pin_memory": None})


def pool(stage: int = 0) -> Record:
    launches = [fakes.launch(number, [[0.01] * 4] * 2) for number in range(ROUNDS)]
    return cell(launches, stage, data="pool", loader={"workers": 2, "prefetch": None, "pin_memory": None})


def test_the_rank_that_waits_longest_counts_and_its_wait_is_part_of_the_step() -> None:
    record = loader(0.01)
    (waited,) = data_waits([record])
    assert waited and waited.over_pool is None
    assert (waited.seconds.value, waited.share.value) == pytest.approx((0.01, 0.5))
    assert waited.is_bottleneck
    assert record.launches[0].step_times_s() == pytest.approx([0.02] * 4)


def test_a_loader_is_compared_with_the_same_configuration_on_a_pool() -> None:
    records = [pool(), loader(0.0051), pool(stage=1)]
    waited = data_waits(records)
    assert waited[0] is waited[2] is None
    assert waited[1] and waited[1].over_pool and waited[1].is_bottleneck
    assert waited[1].over_pool.value == pytest.approx(1.51)
    (alone,) = data_waits([loader(0.0051, stage=2)])
    assert alone and alone.over_pool is None


def test_too_short_a_wait_makes_no_bottleneck() -> None:
    (waited,) = data_waits([loader(0.0001)])
    assert waited and waited.is_bottleneck is False


def test_columns_are_complete_and_empty_without_a_pool() -> None:
    (waited,) = data_waits([loader(0.01)])
    values = columns(waited)
    assert sorted(values) == sorted(COLUMNS) and values["data_wait_share"] == pytest.approx(0.5)
    assert isnan(values["pool_throughput_ratio"]) and columns(None) == {}


def test_the_report_says_whether_the_loader_is_the_bottleneck() -> None:
    (words,) = input_pipeline.sentences(Content([pool(), loader(0.01)]))
    assert words.startswith("The loader is the bottleneck of") and "ranks wait 50 % (95 % CI [50.0, 50.0] %)" in words
    assert "the loader alone reads 1.00 times what they train on" in words
    assert "with data=pool, throughput is 2.00 times as high" in words
    (words,) = input_pipeline.sentences(Content([loader(0.0001)]))
    assert words.startswith("The loader is not the bottleneck of") and "pool" not in words
    assert input_pipeline.section(Content([pool()])).is_empty
