"""The wait for data of made launches: its share of a step, its cost against a pool, and the verdict in words."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import pytest

from analysis.advice.pareto import fronts
from analysis.comparison.compare import pair_values
from analysis.metrics.data_wait import COLUMNS, columns, data_waits
from analysis.report.model.content import Content
from analysis.report.sections import input_pipeline
from analysis.table.frame import frame
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


def loader(wait_s: float, stage: int = 0, rounds: int = ROUNDS, workers: int = 4) -> Record:
    launches = [waiting(number, [0.0, wait_s]) for number in range(rounds)]
    return cell(launches, stage, data="loader", loader={"workers": workers, "prefetch": None, "pin_memory": None})


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


def test_samples_that_ranks_read_together_count_once_and_one_rank_does_not_stand_for_all() -> None:
    apart, together, simulated = loader(0.01), loader(0.01), loader(0.01)
    together.resolved["ranks_per_replica"] = 2
    simulated.resolved["simulated"] = True
    rates = [waited.loader_per_s for waited in data_waits([apart, together, simulated]) if waited]
    assert rates[:2] == [6400.0, 3200.0] and isnan(rates[2])


@pytest.mark.parametrize("wait_s", [0.01, 0.0001])
def test_one_launch_leaves_no_verdict(wait_s: float) -> None:
    record = loader(wait_s, rounds=1)
    (waited,) = data_waits([record])
    assert waited and waited.lost is None and waited.is_bottleneck is None
    (words,) = input_pipeline.sentences(Content([record]))
    assert words.startswith("One launch leaves no interval, so repeats of at least 2 are needed to decide")
    assert input_pipeline.row(Content([record]).measured[0])[-1].text == "one launch"


def test_without_workers_the_remedy_is_a_worker() -> None:
    (words,) = input_pipeline.sentences(Content([loader(0.01, workers=0)]))
    assert words.endswith("With loader.workers=0 reading adds to each step; set loader.workers=1 or more.")
    (words,) = input_pipeline.sentences(Content([loader(0.01)]))
    assert "loader.workers=0" not in words


def test_the_cores_that_a_pool_leaves_to_the_loader_are_named() -> None:
    notes = " ".join(input_pipeline.section(Content([pool(), loader(0.01)])).notes)
    assert "Both run with threads=1, which leaves 4 cores per rank to the loader; set threads" in notes
    chosen = loader(0.01)
    chosen.config["threads"] = 1
    for records in ([pool(), chosen], [loader(0.01)], [pool(), loader(0.01, workers=0)]):
        assert "set threads" not in " ".join(input_pipeline.section(Content(records)).notes)


def test_a_pool_and_a_loader_are_two_tasks_that_can_be_compared() -> None:
    records = [fakes.measured(record) for record in (pool(), loader(0.01, workers=2))]
    assert {answer.task for answer in fakes.answers_of(records)} == {"data pool", "data loader"}
    assert not fronts(frame(records))
    (pair,), alone = pair_values(records, "data", ("pool", "loader"))
    assert (pair.first, pair.second, alone) == (records[0], records[1], [])
