"""Who reaches the target loss first, and who is tied with it."""

from __future__ import annotations

import dataclasses
from math import inf

import pytest

from analysis.advice.time_to_target import Race, races
from analysis.report.model.content import Content
from analysis.report.sections import target
from results.record import Record
from tests.fakes import sweep


def trained(step_s: float, steps_to_it: list[int], at: int) -> Record:
    """Six launches of 100 steps whose loss falls from 2 to 0 where the mean of ten steps is then at most 1."""
    record = sweep(stages=(at,), worlds=(2,), repeats=6, steps=100)[0]
    record.config["target_loss"], record.config["steps"] = 1.0, 100
    for number, fall in enumerate(steps_to_it):
        losses = ([2.0] * (fall - 5) + [0.0] * 100)[:100]  # five of ten steps are then 0
        ranks = [
            dataclasses.replace(
                rank, losses=losses, forward_backward_s=[step_s] * 100, optimizer_s=[0.0] * 100, warmup_step_s=[]
            )
            for rank in record.launches[number].ranks
        ]
        record.launches[number] = dataclasses.replace(record.launches[number], ranks=ranks)
    return record


def raced(*records: Record) -> tuple[Content, Race]:
    content = Content(list(records))
    (race,) = races(list(content.cells()))
    return content, race


def test_the_shortest_median_time_is_first_and_the_ratio_is_of_the_same_rounds() -> None:
    seeds = [20, 30, 40, 50, 60, 70]
    content, race = raced(trained(0.2, seeds, 0), trained(0.1, [steps + 10 for steps in seeds], 1))
    assert [cell.settings["stage"] for cell in race.cells] == [1, 0]
    assert race.cells[0].target and race.cells[0].target.steps.value == 55
    assert race.cells[0].target.seconds.value == pytest.approx(5.5)
    ratios = sorted(0.2 * steps / (0.1 * (steps + 10)) for steps in seeds)
    assert race.ranking.behind[1].value == pytest.approx((ratios[2] + ratios[3]) / 2)
    assert race.tied == [] and race.ranking.behind[1].low > 1
    assert "reaches a loss of 1.00 first: 5.50 s" in target.sentences(content)[0]


def test_a_ratio_that_is_the_same_in_every_round_is_not_that_of_the_first() -> None:
    seeds = [20, 30, 40, 50, 60, 70]
    content, _ = raced(trained(0.25, seeds, 0), trained(0.125, seeds, 1))
    (table,) = target.section(content).tables
    assert [row.values[-1].text for row in table.rows] == ["first", "2.00"]


def test_equal_times_are_tied_whatever_the_seeds() -> None:
    seeds = [20, 30, 40, 50, 60, 70]
    content, race = raced(trained(0.1, seeds, 0), trained(0.1, seeds[::-1], 1))
    assert len(race.tied) == 1
    assert target.sentences(content)[0].endswith("stage 1 · 2 ranks is tied with it.")


def test_launches_that_do_not_reach_it_are_later_than_all_that_do() -> None:
    never = 1000
    content, race = raced(trained(0.1, [50, 60, 70, 80, never, 90], 0), trained(0.1, [50, never] * 3, 1))
    some, half = race.cells
    assert some.target and half.target
    assert (some.target.count, half.target.count) == (5, 3)
    assert some.target.seconds.value == pytest.approx(7.5) and some.target.seconds.high == inf
    assert half.target.seconds.value == inf
    (table,) = target.section(content).tables
    assert [row.values[-4].text for row in table.rows] == ["5 of 6", "3 of 6"]
    assert list(content.table["launches_at_target"]) == [5, 3]


def test_where_none_reaches_it_that_is_said() -> None:
    content, race = raced(trained(0.1, [1000] * 6, 0), trained(0.1, [1000] * 6, 1))
    assert not race.is_won
    assert target.sentences(content) == [
        "No configuration reached a loss of 1.00 in more than half of its launches of 100 steps."
    ]


def test_without_a_target_there_is_no_section() -> None:
    content = Content(sweep(stages=(0, 1), worlds=(2,), repeats=2, steps=3))
    assert target.section(content).is_empty and target.sentences(content) == []
