"""The time gate's verdicts, on made-up launches whose answer is known."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from analysis.comparison import time_gate
from analysis.comparison.verdict import Comparison, Pair
from results.launches import Collective
from results.record import Record
from tests.fakes import bare, cell, launch, measured
from tests.unit.analysis.comparison.test_compare import launches

ALL_REDUCE = Collective("all_reduce", "float32", 1000, 2, 1)


def record(times_s: list[float], **changes: Any) -> Record:
    return cell(launches=launches(times_s), **changes)


def like_cells(count: int, rounds: int, factor: float, seed: int, noise: float = 0.02) -> list[Pair]:
    """Cells whose second side takes ``factor`` times as long, on a machine with heavy tails that drifts."""
    draw = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        pace = 0.01 * np.exp(np.cumsum(draw.normal(0, 0.05, rounds)))
        first, second = (pace * np.exp(noise * draw.standard_t(3, rounds)) for _ in range(2))
        pairs.append(Pair(record(first.tolist()), record((factor * second).tolist())))
    return pairs


@pytest.mark.parametrize("rounds", [8, pytest.param(20, marks=pytest.mark.exhaustive)])
def test_at_most_one_gate_of_a_hundred_raises_a_false_alarm_however_many_cells_it_has(rounds: int) -> None:
    margin = 0.0001  # so that the interval alone protects
    single = [
        outcome.failed
        for pair in like_cells(1000, rounds, 1.0, seed=1)
        for outcome in time_gate.judge_all([pair], margin)
    ]
    assert sum(single) <= 10 + 3 * math.sqrt(10)
    if rounds < time_gate.least_rounds(10):
        return
    pairs = like_cells(2000, rounds, 1.0, seed=2)
    gates = [time_gate.judge_all(pairs[at : at + 10], margin) for at in range(0, 2000, 10)]
    assert sum(any(outcome.failed for outcome in cells) for cells in gates) <= 2 + 3 * math.sqrt(2)


def test_what_a_gate_says_it_finds_it_finds_in_four_of_five_cases() -> None:
    noise = like_cells(40, 20, 1.0, seed=3)
    size = float(np.median([time_gate.judge_all([pair])[0].detectable for pair in noise]))
    assert 0.02 < size < 0.1
    slow = like_cells(400, 20, 1 + size, seed=4)
    slower_count = sum(time_gate.judge_all([pair])[0].verdict == "slower" for pair in slow)
    assert 0.7 < slower_count / 400 < 0.95


def test_the_suggested_number_of_rounds_mostly_suffices() -> None:
    (unclear,) = time_gate.judge_all(like_cells(1, 10, 1.0, seed=9, noise=0.03))
    assert unclear.verdict == "cannot tell" and unclear.needed is not None
    again = like_cells(60, unclear.needed, 1.0, seed=6, noise=0.03)
    same_count = sum(time_gate.judge_all([pair])[0].verdict == "same" for pair in again)
    assert same_count > 30


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, "same"), (1.01, "same"), (1.05, "slower"), (0.95, "faster"), (0.99, "same")]
)
def test_a_verdict_is_by_size_and_by_interval(factor: float, verdict: str) -> None:
    times = [0.010, 0.011, 0.012, 0.013, 0.011, 0.010, 0.012, 0.014]
    (outcome,) = time_gate.judge_all([Pair(record(times), record([factor * time for time in times]))], 0.02)
    assert outcome.verdict == verdict
    assert outcome.step.value == pytest.approx(factor)
    assert outcome.failed == (verdict == "slower")


def test_too_few_rounds_are_never_judged() -> None:
    (outcome,) = time_gate.judge_all([Pair(record([0.01] * 6), record([0.02] * 6))])
    assert outcome.verdict == "cannot tell" and math.isnan(outcome.detectable)
    (outcome,) = time_gate.judge_all([Pair(record([0.01] * 7), record([0.02] * 7))])
    assert outcome.verdict == "slower"


def test_a_step_that_is_slow_now_and_then_is_slower() -> None:
    steps = [0.01] * 10
    hiccup = [0.01] * 8 + [0.02] * 2
    sides = [cell(launches=[launch(at, [times]) for at in range(8)]) for times in (steps, hiccup)]
    (outcome,) = time_gate.judge_all([Pair(*sides)])
    assert outcome.verdict == "slower" and outcome.step.value == pytest.approx(1.2)


def test_an_added_collective_is_found_without_timing() -> None:
    first, second = record([0.01] * 8, gpus=2), record([0.01] * 8, gpus=2)
    first.collectives, second.collectives = [ALL_REDUCE], [ALL_REDUCE, Collective("broadcast", "int64", 1, 2, 3)]
    (outcome,) = time_gate.judge_all([Pair(first, second)])
    assert outcome.exact == ["broadcast of 1 int64 over 2 ranks: 0, now 3 a step"]
    assert outcome.failed and outcome.verdict == "same"
    (back,) = time_gate.judge_all([Pair(second, first)])
    assert back.exact == ["broadcast of 1 int64 over 2 ranks: 3, now 0 a step"] and not back.failed
    second.collectives = None  # measure=time
    assert not time_gate.judge_all([Pair(first, second)])[0].failed


def gate_of(first: list[list[Collective]], second: list[list[Collective]]) -> Comparison:
    """The gate on a cell that differs in its ranks' collectives alone."""
    sides = []
    for ranks in (first, second):
        side = record([0.01] * 8, gpus=len(ranks))
        side.collectives = ranks[0]
        side.collectives_by_rank = ranks if any(rank != ranks[0] for rank in ranks) else []
        sides.append(side)
    (outcome,) = time_gate.judge_all([Pair(*sides)])
    return outcome


def test_as_many_calls_of_as_large_arrays_may_send_more() -> None:
    reduced, scattered = ([[Collective(kind, "float32", 1000, 2, 1)]] * 2 for kind in ("all_reduce", "reduce_scatter"))
    outcome = gate_of(scattered, reduced)
    assert outcome.exact == [
        "all_reduce of 1,000 float32 over 2 ranks: 0, now 1 a step",
        "reduce_scatter of 1,000 float32 over 2 ranks: 1, now 0 a step",
    ]
    assert outcome.failed and not gate_of(reduced, scattered).failed


def test_every_rank_is_looked_at() -> None:
    once, often = ([Collective("send", "float32", 1000, 2, count)] for count in (1, 5))
    outcome = gate_of([once, once], [once, often])
    assert outcome.exact == ["send of 1,000 float32 over 2 ranks: 1, now 1 | 5 a step"]
    assert outcome.failed and not gate_of([once, often], [once, once]).failed
    few, some = ([Collective("send", "float32", 1000, 2, count)] for count in (2, 3))
    assert gate_of([some, some], [once, often]).failed, "the busiest rank decides too"
    assert gate_of([once, some], [few, some]).failed, "and so does the sum"
    assert not gate_of([often, once], [once, often]).failed


def test_the_order_of_the_calls_is_no_difference() -> None:
    ranks = [Collective("all_gather", "uint8", size, 3, 1) for size in (1, 10**9 + 1, 7, 10**7 + 3)]
    assert not gate_of([ranks] * 3, [ranks[::-1]] * 3).failed


def test_an_added_buffer_is_found_without_timing() -> None:
    first, second = measured(record([0.01] * 8)), measured(record([0.01] * 8), peak_bytes=6_500_000)
    (outcome,) = time_gate.judge_all([Pair(first, second)])
    assert outcome.failed and outcome.more and outcome.verdict == "same"
    assert not time_gate.judge_all([Pair(second, first)])[0].failed
    slightly = measured(record([0.01] * 8), peak_bytes=6_010_000)
    assert not time_gate.judge_all([Pair(first, slightly)])[0].failed


def test_a_cell_that_no_longer_runs_fails_the_gate_and_one_that_never_did_is_ignored() -> None:
    fine, broken = record([0.01] * 8), bare("failed", "boom")
    assert time_gate.judge_all([Pair(fine, broken)])[0].failed
    (outcome,) = time_gate.judge_all([Pair(broken, fine)])
    assert outcome.verdict == "not compared" and not outcome.failed


def test_a_cell_that_fails_before_the_other_side_was_timed_is_broken_and_one_that_was_not_launched_is_not_judged() -> (
    None
):
    checked, unlaunched = cell(launches=[]), bare("interrupted", "")
    checked.status = "interrupted"
    for status in ("failed", "oom", "timeout", "parity_failed", "unsupported"):
        assert time_gate.judge_all([Pair(checked, bare(status, "boom"))])[0].failed
        assert not time_gate.judge_all([Pair(unlaunched, bare(status, "boom"))])[0].failed
        assert not time_gate.judge_all([Pair(bare(status, "boom"), checked)])[0].failed
    fine = record([0.01] * 8)
    for pair in (Pair(checked, fine), Pair(fine, checked), Pair(checked, checked)):
        assert time_gate.judge_all([pair])[0].verdict == "not compared"


def test_a_peak_that_differs_between_steps_of_one_launch_says_nothing() -> None:
    first, second = measured(record([0.01] * 8)), measured(record([0.01] * 8), peak_bytes=9_000_000)
    rank = second.memory[0]
    second.memory = [dataclasses.replace(rank, step_peaks_bytes=[rank.peak_bytes] * 2 + [rank.peak_bytes - 8])]
    (outcome,) = time_gate.judge_all([Pair(first, second)])
    assert math.isnan(outcome.peak) and not outcome.failed


def test_what_only_one_side_ran_is_no_pair() -> None:
    """As after Ctrl-C between the two sides of the second round."""
    pair = Pair(cell(launches=launches([0.010, 0.020])), cell(launches=launches([0.010])))
    step = time_gate.judge(pair, 0.02, 0.01).step
    assert (step.launches, step.value) == (1, 1.0)
