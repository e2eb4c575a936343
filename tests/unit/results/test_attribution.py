"""What a report says of a step's parts: verdicts on the instruments, and the report's section."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from bench.measure.verdicts import host_bound
from results.attribution import Attribution, StepParts
from results.launches import Launch
from results.record import Record
from tests.fakes import cell, launch, write_report

ROUNDS = 3


def attribution(silent_s: float, *, missing_s: float = 0.0, **changes: Any) -> Attribution:
    """Two ranks of 0.1 s a step that compute 0.06 s; one waits 0.02 s for the other's call and both 0.01 s more."""

    def step(straggler_s: float) -> StepParts:
        computed_s = 0.08 - straggler_s
        parts = {"compute_s": computed_s - missing_s, "exposed_s": 0.01, "straggler_s": straggler_s, "host_s": 0.0}
        return StepParts(step_s=0.1, optimizer_s=0.01, data_s=0.0, communication_s=0.04, overlapped_s=0.01, **parts)

    silent = [launch(number, [[silent_s] * 4, [silent_s] * 4]) for number in range(ROUNDS)]
    times = Attribution([[step(0.02)] * 5, [step(0.0)] * 5], silent=silent)
    return dataclasses.replace(times, **changes)


def measured(times: Attribution, **changes: object) -> Record:
    launches = [launch(number, [[0.1] * 4, [0.1] * 4]) for number in range(ROUNDS)]
    return cell(gpus=2, launches=launches, attribution=times, **changes)


@pytest.mark.parametrize(("silent_s", "apart"), [(0.08, False), (0.079, False), (0.095, True), (0.05, True)])
def test_instruments_that_differ_by_more_than_their_ranges_disagree(silent_s: float, apart: bool) -> None:
    """The profile says 0.02 s: 0.03 on one rank, 0.01 on the other."""
    record = measured(attribution(silent_s))
    times = record.attribution
    assert times
    profiled, removed = times.profiled_s(), times.removed_s(record.launches)
    assert profiled and removed
    assert (profiled.value, removed.value) == (pytest.approx(0.02), pytest.approx(0.1 - silent_s))
    assert times.disagrees(record.launches) == apart


def test_parts_that_do_not_add_up_disagree() -> None:
    assert not attribution(0.08).disagrees([])
    assert attribution(0.08, missing_s=0.003).disagrees([])


def test_only_rounds_that_have_both_are_compared() -> None:
    times = attribution(0.08)
    assert times.removed_s([]) is None
    removed = times.removed_s([launch(1, [[0.3], [0.3]]), launch(7, [[9.0], [9.0]])])
    assert removed and removed.value == pytest.approx(0.22)


def test_the_wait_for_data_hides_no_communication_and_makes_no_host_slow() -> None:
    """Where the loader is too slow, steps are as long without communication, and ranks wait for data instead."""

    def waiting(made: Launch, wait_s: float) -> Launch:
        return dataclasses.replace(
            made, ranks=[dataclasses.replace(rank, data_s=[wait_s] * 4, backlog_s=0.06) for rank in made.ranks]
        )

    times = attribution(0.08)
    times = dataclasses.replace(times, silent=[waiting(made, 0.22) for made in times.silent])
    launches = [waiting(launch(number, [[0.1] * 4] * 2), 0.2) for number in range(ROUNDS)]
    removed = times.removed_s(launches)
    assert removed and removed.value == pytest.approx(0.02)
    assert not times.disagrees(launches)
    assert not host_bound(launches[0])


def test_what_communicates_in_one_of_two_steps_costs_half_of_it() -> None:
    """Step times 0.08, 0.12 by turns, of which the second has 0.04 of communication; without it 0.08 all."""
    times = attribution(0.08, period=2)
    for steps in times.steps:
        steps[:] = [
            dataclasses.replace(steps[0], exposed_s=cost, straggler_s=0.0, step_s=0.08 + cost) for cost in (0, 0.04)
        ] * 3
    silent = [dataclasses.replace(launch, period=2) for launch in times.silent]
    times = dataclasses.replace(times, silent=silent)
    launches = [dataclasses.replace(launch(number, [[0.08, 0.12] * 4] * 2), period=2) for number in range(ROUNDS)]
    for spread in (times.profiled_s(), times.removed_s(launches)):
        assert spread and (spread.value, spread.low, spread.high) == pytest.approx((0.02, 0.02, 0.02))


@pytest.mark.parametrize(("backlog_s", "bound"), [(None, False), (0.01, True), (0.09, False)])
def test_a_gpu_with_nothing_left_to_do_waited_for_its_host(backlog_s: float | None, bound: bool) -> None:
    timed = launch(0, [[0.1] * 4, [0.1] * 4])
    ranks = [dataclasses.replace(rank, backlog_s=backlog_s) for rank in timed.ranks]
    assert host_bound(Launch(0, "", {}, ranks)) == bound


def test_the_report_shows_both_instruments_and_why_one_is_missing(tmp_path: Path) -> None:
    both = measured(attribution(0.08))
    alone = measured(attribution(0.08, not_silenced="<b>engine=x</b>: it talks"), stage=3)
    assert alone.attribution
    alone.attribution = dataclasses.replace(alone.attribution, silent=[])
    never = measured(Attribution(unprofiled="failed: rank 0", not_silenced="one rank"), stage=1)
    paths = write_report([both, alone, never, cell(2, 2)], tmp_path)
    text = paths.markdown.read_text(encoding="utf-8")
    section = text.partition("## What a step is made of")[2].partition("\n## ")[0]
    first, second, third = [line.split(" | ") for line in section.splitlines() if line.startswith("|")][2:]
    assert first[2:8] == ["70.0", "10.0", "10.0", "10.0", "0", "0"]
    assert first[8:11] == ["25 %", "20.0 [20.0, 20.0]", "20.0 [20.0, 20.0]"]
    assert "failed: rank 0" in second[-1] and set(second[2:8]) == {"–"}
    assert third[10] == "–" and "&lt;b&gt;engine=x" in third[-1]
    assert "What a step is made of" in paths.html.read_text(encoding="utf-8")
    assert any(figure.name.startswith("step_parts") for figure in paths.figures)
    with open(paths.csv, newline="", encoding="utf-8") as file:
        rows = {row["stage"]: row for row in csv.DictReader(file)}
    assert float(rows["0"]["compute_part_s"]) == pytest.approx(0.07)
    assert float(rows["0"]["exposed_removed_s"]) == pytest.approx(0.02)
    assert rows["2"]["compute_part_s"] == rows["3"]["exposed_removed_s"] == ""
    assert "What a step" not in write_report([cell(2, 2)], tmp_path / "other", drawn=False).markdown.read_text(
        encoding="utf-8"
    )


def test_an_attribution_survives_being_written_and_read(tmp_path: Path) -> None:
    record = measured(attribution(0.08, straggler_unknown="x"))
    record.write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == record
