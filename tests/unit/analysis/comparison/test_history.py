"""Change points in rows of sweeps whose changes are known."""

from __future__ import annotations

import tracemalloc
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from analysis.__main__ import main
from analysis.comparison import history
from results.record import Record, side_id
from tests.fakes import ENVIRONMENT, cell, write_all
from tests.unit.analysis.comparison.test_compare import launches


def nights(steps_s: list[float]) -> list[Record]:
    """A sweep a night."""
    return [
        cell(
            launches=launches([step_s] * 3),
            sweep_id=f"2026-03-{night:02}",
            environment=ENVIRONMENT | {"time": f"2026-03-{night:02}T02:00:00+00:00", "git": {"commit": f"{night:040}"}},
        )
        for night, step_s in enumerate(steps_s, 1)
    ]


def noisy(count: int, seed: int, factors: dict[int, float] | None = None, spread: float = 0.02) -> np.ndarray:
    """Step times with heavy tails, each ``factor`` times as long from a position on."""
    values = 0.01 * np.exp(spread * np.random.default_rng(seed).standard_t(3, count))
    for at, factor in (factors or {}).items():
        values[at:] *= factor
    return values


def test_a_change_is_found_where_it_is_and_how_large() -> None:
    (change,) = history.change_points(noisy(30, 0, {18: 1.2}), 0.01)
    assert abs(change.at - 18) <= 1
    assert change.ratio == pytest.approx(1.2, rel=0.04) and change.p_value < 0.001


def test_several_changes_are_found_each() -> None:
    changes = history.change_points(noisy(60, 1, {20: 1.3, 40: 1 / 1.3}), 0.01)
    assert [abs(change.at - at) <= 1 for change, at in zip(changes, (20, 40), strict=True)] == [True, True]
    assert [change.ratio for change in changes] == pytest.approx([1.3, 1 / 1.3], rel=0.05)


def test_at_most_one_of_a_hundred_rows_without_a_change_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "ORDERS", 2000)
    alarms = sum(bool(history.change_points(noisy(24, seed), 0.01)) for seed in range(300))
    assert alarms <= 3 + 3 * 3**0.5


def test_one_outlier_is_no_change() -> None:
    values = noisy(20, 3)
    values[10] *= 5
    assert history.change_points(values, 0.01) == []


def test_the_fewest_sweeps_that_can_show_a_change_do() -> None:
    least = history.least_sweeps(0.01)
    assert least == 14
    for count, changes in ((least, 1), (least - 1, 0)):
        series = history.series(nights([0.01 + 1e-5 * at + 0.01 * (at >= 7) for at in range(count)]), 0.02, 0.01)
        assert len(series.changes) == changes
    assert series.verdict == "too few sweeps"


def test_the_last_change_decides_and_a_small_one_is_none() -> None:
    better_then_worse = noisy(42, 4, {12: 1 / 1.3, 28: 1.2}).tolist()
    assert history.series(nights(better_then_worse), 0.02, 0.01).verdict == "slower"
    steady = noisy(40, 6, {20: 1.01}, spread=0.001).tolist()
    assert history.series(nights(steady), 0.005, 0.01).verdict == "slower"
    assert history.series(nights(steady), 0.02, 0.01).verdict == "same"


def test_the_command_names_the_sweep_and_its_commit_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = nights(noisy(24, 7, {15: 1.25}).tolist())
    other = cell(launches=launches([0.05] * 3), sweep_id="elsewhere")
    other.environment["cpu_model"] = "another machine"
    folder = write_all([*records[::-1], other], tmp_path / "nights")
    assert main(["history", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "slower" in out and "2026-03-16" in out and f"{16:040}"[:12] in out
    assert "1 of 1 slower since their last change" in out
    assert main(["history", str(folder), "--same", "50"]) == 0
    assert main(["history", str(folder / "records" / "0000-torch-s0-n1-digits-fp32.json")]) == 2
    assert "no configuration is in two sweeps of the same hardware" in capsys.readouterr().err


def test_a_gate_is_one_night_and_its_current_code_counts() -> None:
    gates = nights([0.01, 0.01, 0.01])
    for record in gates:
        record.sweep_id = side_id(record.sweep_id, "current")
    bases = nights([0.02, 0.02, 0.02])
    for record in bases:
        record.sweep_id = side_id(record.sweep_id, "base")
    (series,) = history.histories([record for night in zip(bases, gates, strict=True) for record in night], 0.02)
    assert series.steps_s == pytest.approx([0.01, 0.01, 0.01])


def test_an_end_of_a_stretch_that_its_neighbours_do_not_bear_out_is_no_change() -> None:
    values = noisy(25, 8, {13: 1.5})
    values[0] = 0.0152  # as high as those after the change, by chance
    assert [change.at for change in history.change_points(values, 0.01)] == [13]


def test_a_setting_that_is_new_does_not_cut_a_series_and_is_named() -> None:
    records = nights(noisy(28, 9, {14: 1.3}).tolist())
    for record in records[14:]:
        record.config |= {"compression": "none", "tiles": 4}
    aside = nights([0.01] * 28)[20]  # of the same code, with the new setting set
    aside.config |= {"compression": "powersgd", "tiles": 4}
    histories = history.histories([*records, aside], 0.02)
    assert [(len(series.steps_s), series.verdict) for series in histories] == [(28, "slower")]
    assert history.summary(histories, 0.02)[1:] == [
        "warning: not in every record, and taken for unset where missing: compression, tiles"
    ]
    assert len(history.summary(history.histories(records[:14], 0.02), 0.02)) == 1


def test_the_chance_of_a_cut_is_counted_exactly() -> None:
    for before, after in ((1, 1), (2, 3), (5, 2), (4, 4)):
        middle = before * (before + after - 1) / 2
        orders = [set(order) for order in combinations(range(before + after), before)]
        apart = [abs(sum(order) - middle) for order in orders]
        for order, distance in zip(orders, apart, strict=True):
            rest = set(range(before + after)) - order
            first, second = (np.array(sorted(side), dtype=float) + 1 for side in (order, rest))
            share = sum(other >= distance for other in apart) / len(apart)
            assert history._change(first, second, before).p_value == pytest.approx(share, rel=1e-12)


def test_many_cells_over_many_nights_share_what_is_drawn_and_hold_little_at_once() -> None:
    history._by_chance.cache_clear()
    tracemalloc.start()
    for seed in range(10):
        history.change_points(noisy(120, seed), 0.01 / 50)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert history._by_chance.cache_info().misses < 10, "of 200: no series moved, which the first orders tell"
    assert most_bytes < 10e6
