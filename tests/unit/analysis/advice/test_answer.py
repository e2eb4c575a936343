"""The answer in words: the fastest, its ties by paired ratio, the lowest memory, and when nothing is named."""

from __future__ import annotations

import dataclasses

import pytest

from results.record import Record
from tests.fakes import answers_of, cell, launch, measured, sweep


def words(records: list[Record], about: str = "") -> str:
    """All that the answers say, or what they say about one thing."""
    paragraphs = [entry for task in answers_of(records) for entry in task.paragraphs]
    return " ".join(entry.text for entry in paragraphs if about in entry.about)


def steps(gpus: int, stage: int, *times: float, peak: int = 6_000_000, **changes: object) -> Record:
    launches = [launch(at, [[step] * 2] * gpus) for at, step in enumerate(times)]
    return measured(cell(stage, gpus, launches, **changes), peak_bytes=peak)


def test_the_answer_names_the_fastest_and_the_lowest_peak_memory_and_its_price() -> None:
    fast = steps(2, 0, 0.010, 0.0101, 0.0102)
    lean = steps(2, 3, 0.015, 0.0151, 0.0152, peak=2_000_000)
    text = words([fast, lean])
    assert "Fastest is stage 0: 12,673 samples/s (75 % CI [12,549, 12,800])." in text
    assert "All others are slower (paired ratio over rounds, 75 % (3 launches))." in text
    assert "Lowest peak memory: stage 3, 2.42 MiB per rank instead of 6.74 MiB, at 0.67 times the throughput." in text
    (answer,) = answers_of([fast, lean])
    assert answer.headline.startswith("Fastest at 2 ranks is stage 0: 12,673 samples/s (75 % CI [12,549, 12,800]); all")
    assert answer.headline.count(". ") == 1, "two sentences"


def test_of_peaks_within_the_tolerance_the_fastest_is_the_lowest() -> None:
    fast = steps(2, 0, 0.010, 0.0101, 0.0102)
    lean = [steps(2, stage, 0.01 * stage, 0.01 * stage, 0.01 * stage, peak=2_000_000 - stage) for stage in (2, 3)]
    assert "Lowest peak memory: stage 2" in words([fast, *lean])


def test_a_tie_is_a_paired_ratio_that_includes_1() -> None:
    crossing = [steps(2, 0, 0.010, 0.012, 0.011), steps(2, 1, 0.0101, 0.0119, 0.0111), steps(2, 3, 0.02, 0.021, 0.022)]
    assert "Stage 1 is tied with it (paired ratio over rounds includes 1; 75 % (3 launches))." in words(crossing)
    assert "No configuration is measurably faster than all others" in words(crossing[:2])


def test_overlapping_intervals_are_no_tie_where_every_round_says_slower() -> None:
    text = words([steps(2, 0, 0.010, 0.012, 0.011), steps(2, 1, 0.0105, 0.0125, 0.0115)])
    assert (
        "Fastest is stage 0" in text and "All others are slower (paired ratio over rounds, 75 % (3 launches))" in text
    )


def test_one_launch_says_nothing_about_ties() -> None:
    assert "One launch each is too few to assess ties." in words([steps(2, 0, 0.01), steps(2, 1, 0.02)])


def loaded(record: Record, *shares: float) -> Record:
    for one, share in zip(record.launches, shares, strict=True):
        one.conditions.update(cpus=2.0, window_s=1.0, background_cpu_s=2.0 * share, stolen_cpu_s=0.0)
    return record


@pytest.mark.parametrize(("shares", "is_named"), [((0.69, 0, 0), False), ((0.3, 0.3, 0.3), False), ((0.3, 0, 0), True)])
def test_a_winner_under_heavy_background_load_is_not_named(shares: tuple[float, ...], is_named: bool) -> None:
    cells = [loaded(steps(2, 0, 0.010, 0.0101, 0.0102), *shares), steps(2, 3, 0.015, 0.0151, 0.0152)]
    assert ("Fastest is stage 0" in words(cells)) == is_named
    (answer,) = answers_of(cells)
    assert ("No fastest configuration is named" in answer.headline) != is_named
    if not is_named:
        assert f"others took up to {100 * max(shares):.0f} % of the CPU time" in answer.headline


def test_the_order_of_throughput_decides_not_that_of_step_time() -> None:
    short = steps(2, 0, 0.010, 0.010, 0.010)
    for one in short.launches:
        one.ranks[:] = [dataclasses.replace(rank, wall_s=3 * rank.wall_s) for rank in one.ranks]
    assert "Fastest is stage 1" in words([short, steps(2, 1, 0.015, 0.015, 0.015)])


def test_oversubscribed_worlds_make_no_claim_about_scaling() -> None:
    text = words(sweep(), "Scaling")
    assert "From 1 rank to 2, stage 0 keeps 87 % (94 % CI [" in text
    assert "Four and eight ranks on two cores say nothing about scaling" in text
    only_crowded = words(sweep((0,), (1, 8)), "Scaling")
    assert "keeps" not in only_crowded
    assert "Eight ranks on two cores say nothing about scaling" in only_crowded


def test_a_failed_parity_is_never_the_answer() -> None:
    wrong = steps(2, 0, 0.001, 0.001, 0.001, status="parity_failed")
    assert "stage 0" not in words([wrong, steps(2, 1, 0.01, 0.01, 0.01), steps(2, 2, 0.02, 0.02, 0.02)])


def test_different_work_is_never_compared() -> None:
    cells = [cell(0, 1, workload={"name": name}) for name in ("digits", "gpt")]
    assert [task.task for task in answers_of(cells)] == ["digits", "gpt"]
