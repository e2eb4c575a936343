"""Comparisons whose answer is known."""

from __future__ import annotations

import dataclasses
import math
import random
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.__main__ import main
from analysis.comparison import compare
from analysis.comparison.verdict import NothingToCompare, Pair, judge
from analysis.metrics import rounds
from analysis.statistics.medians import Interval
from results.launches import Launch
from results.record import Record, side_id
from tests.fakes import bare, cell, launch, measured, write_all


def launches(times_s: list[float]) -> list[Launch]:
    return [launch(round_, [[seconds] * 4]) for round_, seconds in enumerate(times_s)]


def drifting(factor: float, rounds: int = 8, noise: float = 0.0, seed: int = 0) -> list[float]:
    """Step times of a machine that drifts by a factor of 3, the same for all cells of a round."""
    draw = random.Random(seed)
    return [0.01 * factor * (1 + 2 * at / rounds) * math.exp(draw.gauss(0, noise)) for at in range(rounds)]


def pair(first: list[float], second: list[float], **changes: Any) -> Pair:
    return Pair(cell(launches=launches(first)), cell(launches=launches(second), **changes))


def test_rounds_of_one_sweep_cancel_what_drifts() -> None:
    outcome = compare.compare(pair(drifting(1.0), drifting(1.05)), margin=0.02)
    assert outcome.verdict == "slower"
    assert outcome.step.low == pytest.approx(1.05) and outcome.step.high == pytest.approx(1.05)


def test_both_sides_of_one_gate_share_their_rounds_and_sides_of_two_do_not() -> None:
    sides = pair(drifting(1.0), drifting(1.05))
    sides.first.sweep_id, sides.second.sweep_id = side_id("monday", "base"), side_id("monday", "current")
    assert compare.compare(sides, margin=0.02).verdict == "slower"
    sides.second.sweep_id = side_id("tuesday", "current")
    assert compare.compare(sides, margin=0.02).verdict == "cannot tell"


def test_one_round_that_a_resumed_sweep_shares_says_less_than_all_launches() -> None:
    both = pair([0.010, 0.011, 0.012], [0.020, 0.021, 0.022])
    both.second.launches = [dataclasses.replace(late, round=late.round + 2) for late in both.second.launches]
    first, second, paired = rounds.samples(both.first, both.second, lambda _, launch: launch.step_times_s()[0])
    assert (len(first), len(second), paired) == (3, 3, False)


def test_two_sweeps_share_no_rounds() -> None:
    outcome = compare.compare(pair(drifting(1.0), drifting(1.05), sweep_id="another"), margin=0.02)
    assert outcome.verdict == "cannot tell"
    assert outcome.needed is not None and outcome.needed > 100


@pytest.mark.parametrize(
    "low, high, verdict",
    [
        (0.99, 1.01, "same"),
        (1.001, 1.015, "same"),
        (1.01, 1.05, "slower"),
        (0.90, 0.99, "faster"),
        (0.95, 1.01, "cannot tell"),
        (math.nan, math.nan, "cannot tell"),
    ],
)
def test_a_verdict_needs_effect_and_interval(low: float, high: float, verdict: str) -> None:
    assert judge(Interval(1.0, low, high, 0.95, 8), margin=0.02) == verdict


def test_the_suggested_number_of_launches_suffices() -> None:
    """Equal cells with 5 % of noise, on a machine that drifts by much more."""
    few = compare.compare(pair(drifting(1, noise=0.05), drifting(1, noise=0.05, seed=1)), margin=0.02)
    assert few.verdict == "cannot tell" and few.needed is not None
    assert 50 < few.needed < 500
    many = round((3.24 * 1.2533 * 0.05 * 2**0.5 / 0.02) ** 2)  # what it would ask for if it knew the noise
    settled = [
        compare.compare(pair(drifting(1, many, 0.05, seed), drifting(1, many, 0.05, seed + 100)), margin=0.02).verdict
        for seed in range(1, 31)
    ]
    assert settled.count("same") >= 18, "four of five, less chance"
    assert settled.count("faster") + settled.count("slower") <= 4


def test_one_launch_has_no_verdict() -> None:
    outcome = compare.compare(pair([0.01], [0.02]), margin=0.02)
    assert (outcome.verdict, outcome.needed) == ("cannot tell", None)


def test_memory_is_compared_in_addition_to_time() -> None:
    sides = [measured(cell(launches=launches([0.01] * 6)), peak_bytes=size) for size in (6_000_000, 9_000_000)]
    outcome = compare.compare(Pair(*sides), margin=0.02)
    assert (outcome.verdict, outcome.peak) == ("same", pytest.approx(1.5, rel=0.1))


def test_a_cell_that_no_longer_ends_well_is_broken() -> None:
    ok = cell(launches=launches([0.01] * 6))
    assert compare.compare(Pair(ok, bare("failed", "rank 0: ValueError")), 0.02).verdict == "broken"
    assert compare.compare(Pair(bare("failed", "rank 0: ValueError"), ok), 0.02).verdict == "not compared"


def engines() -> list[Record]:
    return [
        cell(stage, gpus, launches(drifting(factor)), engine={"name": name, name: True})
        for name, factor in (("torch", 1.0), ("native", 0.8))
        for stage in (0, 3)
        for gpus in (1, 2)
    ]


def test_two_engines_of_a_sweep_are_compared_whatever_options_they_have() -> None:
    pairs, alone = compare.pair_values(engines(), "engine", ("torch", "native"))
    assert len(pairs) == 4 and not alone
    outcomes = [compare.compare(cells, 0.02) for cells in pairs]
    assert {outcome.verdict for outcome in outcomes} == {"faster"}
    assert not any(outcome.failed for outcome in outcomes)


def test_a_setting_is_matched_by_number_or_word() -> None:
    records = [cell(launches=launches([0.01] * 6), bucket_mb=size, overlap=size > 5) for size in (4.0, 25.0)]
    with pytest.raises(NothingToCompare, match="same settings"):  # overlap differs too
        compare.pair_values(records, "bucket_mb", ("4", "25"))
    with pytest.raises(NothingToCompare, match=r"no configuration has bucket_mb=5; there are 25\.0, 4\.0"):
        compare.pair_values(records, "bucket_mb", ("4", "5"))


def test_a_setting_that_one_side_does_not_have_is_taken_for_unset_there() -> None:
    old = [cell(stage) for stage in (0, 1)]
    new = [
        cell(stage, config=old[stage].config | {"compile": compiled, "tiles": 4})
        for stage in (0, 1)
        for compiled in (True, False)
    ]
    for first, second in ((old, new), (new, old)):
        pairs, alone = compare.pair_sets(first, second)
        assert [pair.first.config["stage"] for pair in pairs] == [0, 1]
        assert {side.config.get("compile") for pair in pairs for side in (pair.first, pair.second)} == {None, False}
        assert [record.config["compile"] for record in alone] == [True, True]
    out = Console(record=True, width=200)
    outcomes = [compare.compare(pair, 0.02) for pair in pairs]
    compare.show(outcomes, alone, ("a", "b"), setting=None, margin=0.02, out=out)
    assert out.export_text().splitlines()[:2] == [
        "differs: compile: false | not recorded",
        "differs: tiles: 4 | not recorded",
    ]


def test_a_setting_that_is_set_everywhere_where_it_is_new_does_not_distinguish_cells_from_earlier_ones() -> None:
    pairs, _ = compare.pair_sets([cell()], [cell(config=cell().config | {"tiles": 4})])
    assert len(pairs) == 1
    several = [cell(config=cell().config | {"tiles": tiles}) for tiles in (4, 8)]
    with pytest.raises(NothingToCompare, match="same settings"):
        compare.pair_sets([cell()], several)


def test_differences_of_environment_are_named() -> None:
    first, second = cell(), cell(environment=cell().environment | {"torch": "2.16.0", "time": "later"})
    assert compare.environment_differences([Pair(first, second)]) == ["torch: 2.15.0 | 2.16.0"]


def test_the_command_prints_what_is_slower_and_exits_with_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = write_all([cell(0, 1, launches([0.01] * 6)), cell(3, 1, launches([0.01] * 6))], tmp_path / "a")
    after = write_all([cell(0, 1, launches([0.01] * 6)), cell(3, 1, launches([0.012] * 6))], tmp_path / "b")
    assert main(["compare", str(before), str(after)]) == 1
    printed = capsys.readouterr().out
    assert "2 configurations, second against first: 1 slower, 1 same." in printed
    assert main(["compare", str(after), str(before)]) == 0


@pytest.mark.parametrize(
    "arguments, error",
    [
        (
            ["a"],
            "compare needs two PATHs, and there is 1; to compare settings within one sweep add --between SETTING=A,B",
        ),
        (["a", "b", "--between", "stage=0,3"], "compare --between compares within one PATH; there are 2"),
        (["a", "nowhere"], "does not exist"),
        (["a", "b", "--same", "0"], "--same 0 is not valid; valid: per cent above 0"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    arguments: list[str],
    error: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_all([cell(0, 1, launches([0.01] * 6))], tmp_path / name)
    assert main(["compare", *arguments]) == 2
    message = capsys.readouterr().err
    assert error in message and message.count("\n") == 1


def test_a_side_that_diverged_or_was_disturbed_is_marked_so() -> None:
    both = pair([0.010, 0.011], [0.020, 0.022])
    both.second.verdicts = ["throttled"]
    assert compare.verdict_words(compare.compare(both, 0.02)) == "slower; throttled (second)"
    both.first.verdicts = ["throttled", "outside_parity"]
    assert compare.verdict_words(compare.compare(both, 0.02)) == "slower; throttled; outside parity (first)"
    both.second.verdicts = ["loss_not_finite"]
    assert compare.verdict_words(compare.compare(both, 0.02)) == "broken: training diverged"


def test_collectives_have_no_steps_to_compare() -> None:
    both = pair([0.010, 0.011], [0.020, 0.022])
    for side in (both.first, both.second):
        side.launches = [launch(0, [])]
    outcome = compare.compare(both, 0.02)
    assert compare.verdict_words(outcome) == "not compared: no steps timed"
    assert compare.table([outcome], ("then", "now"), None).row_count == 1


def test_what_lies_at_the_margin_is_not_settled_by_fewer_launches_than_there_are() -> None:
    at_margin = pair([0.010] * 40, [0.0099, 0.0103] * 20)
    assert compare.verdict_words(compare.compare(at_margin, 0.02)) == "cannot tell: about as far apart as the margin"


def test_a_name_is_never_markup() -> None:
    outcomes = []
    for name in ("[/red]", "[link=x]y[/link]"):
        both = pair([0.010, 0.011], [0.020, 0.022])
        both.first.config["workload"]["name"] = name
        outcomes.append(compare.compare(both, 0.02))
    written = StringIO()
    Console(file=written, width=200).print(compare.table(outcomes, ("[bold]", "now"), None))
    assert all(name in written.getvalue() for name in ("[/red]", "[link=x]y[/link]", "[bold] ms"))
