"""Scaling efficiency: its baseline, its interval, its cap, and what is never ranked."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from analysis.figures.canvas import style
from analysis.figures.curves import EFFICIENCY, curve
from analysis.metrics.scaling import Efficiency, cap, efficiencies, serial_fraction
from analysis.report.model.content import Content
from analysis.report.sections.serial_fraction import trends
from analysis.statistics import medians
from analysis.statistics.medians import Interval
from analysis.table.frame import frame
from analysis.table.panels import layout, panels
from results.record import Record
from tests.fakes import GPU, bare, cell, launch, sweep, write_report


def timed(gpus: int, *step_s: float, **changes: object) -> Record:
    """A cell with one launch of two equal steps per given step time."""
    launches = [launch(at, [[step] * 2] * gpus) for at, step in enumerate(step_s)]
    return cell(0, gpus, launches, **changes)


def only(efficiency: Efficiency | None) -> Efficiency:
    assert efficiency is not None
    return efficiency


def test_weak_scaling_efficiency_by_hand() -> None:
    one, two = timed(1, 0.010), timed(2, 0.0125)  # 6,400/s on one rank, 10,240/s on two
    efficiency_entries = [only(entry) for entry in efficiencies([one, two])]
    assert [entry.interval.value for entry in efficiency_entries] == pytest.approx([1.0, 0.8])
    assert [entry.baseline_gpus for entry in efficiency_entries] == [1, 1]


def test_strong_scaling_has_the_same_definition() -> None:
    one, two = timed(1, 0.010, scaling="strong"), timed(2, 0.008, scaling="strong")
    two.resolved["global_batch"] = 64
    assert only(efficiencies([one, two])[1]).interval.value == pytest.approx(0.010 / 0.008 / 2)


def test_the_baseline_is_the_smallest_world_that_ended_ok() -> None:
    failed = bare("failed", "it broke")
    wrong = timed(2, 0.01, status="parity_failed")
    efficiency_entries = efficiencies([failed, wrong, timed(4, 0.01), timed(8, 0.02)])
    assert efficiency_entries[:2] == [None, None]
    assert only(efficiency_entries[3]).baseline_gpus == 4
    assert only(efficiency_entries[3]).interval.value == pytest.approx(0.5)


def test_cells_that_differ_in_another_setting_or_in_hardware_are_not_compared() -> None:
    other = timed(2, 0.01, precision="bf16")
    elsewhere = timed(2, 0.01)
    elsewhere.environment = elsewhere.environment | {"cpu_model": "another"}
    efficiency_entries = [only(entry) for entry in efficiencies([timed(1, 0.01), other, elsewhere])]
    assert [entry.baseline_gpus for entry in efficiency_entries] == [1, 2, 2]


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


def test_the_value_is_the_median_of_the_rounds_efficiencies() -> None:
    one, two = timed(1, 0.010, 0.020, 0.030), timed(2, 0.0125, 0.0200, 0.0600)  # 0.8, 1 and 0.5 round by round
    interval = only(efficiencies([one, two])[1]).interval
    assert (interval.low, interval.value, interval.high) == pytest.approx((0.5, 0.8, 1.0))


@pytest.mark.parametrize("rounds", [5, 8, 12])
def test_under_drift_the_median_of_ratios_errs_less_than_the_ratio_of_medians(rounds: int) -> None:
    """Rounds of different speed, the true ratio 1: covered as often as stated, and closer. Four standard errors."""
    generator = np.random.default_rng(rounds)
    trials = 400
    errors, widths, covered = [], [], []
    for _ in range(trials):
        drift = generator.lognormal(0, 0.2, rounds)
        above, below = (drift * generator.lognormal(0, 0.02, rounds) for _ in range(2))
        ours, other = medians.median_interval(above / below), medians.ratio_interval(above, below)
        errors.append([abs(math.log(interval.value)) for interval in (ours, other)])
        widths.append([interval.high - interval.low for interval in (ours, other)])
        covered.append(ours.low <= 1 <= ours.high)
    level = medians.attainable(rounds)
    assert np.mean(covered) >= level - 4 * (level * (1 - level) / trials) ** 0.5
    ours, other = np.mean(errors, axis=0)
    assert ours < 0.8 * other
    ours, other = np.median(widths, axis=0)
    assert ours <= (0.8 if rounds >= 12 else 1.01) * other


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
        record.environment["gpus"] = [GPU] * 4
    assert cap(eight, one) == 4 / 8
    eight.environment["gpus"] = []
    assert math.isnan(cap(eight, one)), "unknown hardware has no cap rather than a guessed one"


def test_each_stage_has_its_own_baseline() -> None:
    records = sweep()
    efficiency_entries = [only(entry) for entry in efficiencies(records)]
    at_one = [
        entry.interval.value
        for entry, record in zip(efficiency_entries, records, strict=True)
        if record.resolved["world_size"] == 1
    ]
    assert at_one == [1.0] * 4


def strong(gpus: int, *step_s: float, **changes: object) -> Record:
    """A cell that shares out one global batch of 64, on cores enough."""
    record = timed(gpus, *step_s, scaling="strong", **changes)
    record.resolved |= {"global_batch": 64, "cores": 64}
    record.verdicts = []
    return record


def test_the_serial_fraction_of_amdahls_law_is_its_serial_part() -> None:
    for growth, share in ((2.0, 0.1), (8.0, 0.1), (64.0, 0.02)):
        efficiency = 1 / (share + (1 - share) / growth) / growth
        share_of_steps = serial_fraction(Interval(efficiency, efficiency * 0.9, efficiency * 1.1, 0.95, 6), growth)
        assert share_of_steps.value == pytest.approx(share)
        assert share_of_steps.low == pytest.approx((1 / (1.1 * efficiency) - 1) / (growth - 1))
        assert share_of_steps.low < share_of_steps.value < share_of_steps.high


def test_the_serial_fraction_is_the_published_formula_of_the_speedup() -> None:
    speedup, ranks = 5, 8
    fraction = serial_fraction(Interval(speedup / ranks, 0.6, 0.7, 0.95, 6), ranks)
    assert fraction.value == pytest.approx((1 / speedup - 1 / ranks) / (1 - 1 / ranks))


def test_only_strong_scaling_beyond_its_baseline_has_a_serial_fraction() -> None:
    weak = frame([timed(1, 0.01, 0.01), timed(2, 0.012, 0.012)])
    assert weak["serial_fraction"].isna().all()
    table = frame([strong(1, 0.100, 0.110), strong(2, 0.055, 0.066)])
    assert table["serial_fraction"].isna().tolist() == [True, False]
    ends = table[["serial_fraction_low", "serial_fraction", "serial_fraction_high"]].iloc[1].tolist()
    assert ends == pytest.approx([0.1, 0.1478, 0.2], abs=1e-4)


def trend_of(*cells: Record) -> str:
    (line,) = trends(Content(cells))
    return line


def test_the_trend_of_the_serial_fraction_in_words() -> None:
    pace = [1.0, 1.1, 0.95, 1.02, 1.3, 1.2]
    one = strong(1, *(0.100 * slow for slow in pace))
    two, eight = (strong(gpus, *((0.010 + 0.090 / gpus) * slow for slow in pace)) for gpus in (2, 8))
    slow = strong(8, *((0.010 + 0.090 / 8 + 0.01) * slow for slow in pace))
    quick = strong(8, *((0.001 + 0.099 / 8) * slow for slow in pace))
    assert "no change detected from 10 % at 2 ranks to 10 % at 8" in trend_of(one, two, eight)
    assert "no number of ranks is more than 10.0 times as fast" in trend_of(one, two, eight)
    assert "it rises from 10 % at 2 ranks to 21 % at 8 (change: 95 % CI [+11.4, +11.4] points" in trend_of(
        one, two, slow
    )
    assert "it falls from 10 % at 2 ranks to 1.0 % at 8" in trend_of(one, two, quick)
    assert "one world size shows no trend" in trend_of(one, two)
    assert "too few to detect a change" in trend_of(strong(1, 0.1), strong(2, 0.06), strong(8, 0.05))


def test_oversubscribed_worlds_have_no_trend(tmp_path: Path) -> None:
    records = [strong(1, 0.1, 0.1), strong(2, 0.055, 0.055), strong(8, 0.2, 0.2)]
    records[2].verdicts = ["oversubscribed"]
    assert "one world size shows no trend" in trend_of(*records)
    page = write_report(records, tmp_path, drawn=False).markdown.read_text(encoding="utf-8")
    assert "oversubscribed: says nothing about scaling" in page
    assert "| 1.82 of 2 | 10 % [10.0, 10.0] |" in page


def test_weak_and_strong_scaling_have_figures_of_their_own_with_the_ideal_and_the_cap() -> None:
    crowd = [timed(gpus, 0.01, 0.011) for gpus in (1, 2, 8)]
    records = [*crowd, strong(1, 0.1, 0.11), strong(2, 0.055, 0.066)]
    for record in records:
        record.resolved["cores"] = 2
    table = frame(records)
    place = layout(table)
    assert (place.axis, place.series, place.panels) == ("gpus", None, ["scaling"])
    with style():
        figures = {panel.title: curve(panel, place, EFFICIENCY) for panel in panels(table, place.panels)}
    shown = {}
    for title, figure in figures.items():
        assert figure is not None
        shown[title] = [text.get_text() for text in figure.legends[0].get_texts()]
        heights = [line.get_ydata() for line in figure.axes[0].lines]
        assert any(list(height) == [100, 100] for height in heights), "the ideal"
    assert shown == {"strong scaling": ["ideal"], "weak scaling": ["ideal", "cap"]}
    weak = figures["weak scaling"]
    assert weak is not None
    assert any(list(line.get_ydata()) == [100, 100, 25] for line in weak.axes[0].lines), "two cores for eight ranks"
