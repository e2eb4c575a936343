"""The noise floor, from launches whose noise is known."""

from __future__ import annotations

import csv
import json
import math
from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from analysis.__main__ import main
from analysis.comparison import noise
from analysis.comparison.verdict import NothingToCompare
from analysis.statistics import paired
from results.record import Record, side_id
from results.source import Source
from tests.fakes import bare, cell, write_all
from tests.unit.analysis.comparison.test_compare import launches

SPREAD = 0.03


def like_launches(rounds: int, seed: int, **changes: str) -> Record:
    draw = np.random.default_rng(seed)
    return cell(launches=launches((0.01 * np.exp(draw.normal(0, SPREAD, rounds))).tolist()), **changes)


def test_launches_find_what_theory_says_for_normal_noise() -> None:
    logs = np.random.default_rng(0).normal(0, SPREAD, 400)
    for count in (10, 20, 40):
        z = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
        expected = math.expm1(z * SPREAD * math.sqrt(math.pi / 3 / count))
        assert noise.detectable(logs, count) == pytest.approx(expected, rel=0.15)
    assert noise.detectable(logs, 5) == math.inf
    assert noise.detectable(logs, 240) == pytest.approx(noise.detectable(logs, 60) / 2, rel=0.01)


def test_sides_that_differ_without_a_reason_are_noise_too() -> None:
    logs = np.random.default_rng(0).normal(0.05, 0.001, 50)
    assert noise.detectable(logs, 20) > 0.02


def test_a_change_of_the_size_it_names_is_found_in_four_of_five_comparisons() -> None:
    draw = np.random.default_rng(1)
    is_slower = []
    for _ in range(12):  # what a hundred launches showed differs
        size = math.log1p(noise.detectable(SPREAD * draw.standard_t(2, 100), 20))
        compared = (size + SPREAD * draw.standard_t(2, 20) for _ in range(50))
        is_slower += [paired.ratio_interval(logs, noise.ONE_SIDED).low > 1 for logs in compared]
    assert 0.7 < np.mean(is_slower) < 0.9


def test_the_launches_that_a_change_takes_find_it_and_fewer_do_not() -> None:
    logs = np.random.default_rng(2).normal(0, SPREAD, 100)
    detectable = partial(noise.detectable, logs)
    for change in (0.03, 0.05):
        needed = noise.launches_for(detectable, change)
        assert noise.detectable(logs, needed) <= change < noise.detectable(logs, needed - 1)
    assert noise.launches_for(detectable, 0.0025) > 4 * noise.RESAMPLED


def test_sides_of_one_gate_are_paired_by_round_and_drift_cancels() -> None:
    times = [0.01 * 1.5**at for at in range(8)]
    sides = [cell(launches=launches(times), sweep_id=side_id("monday", side)) for side in ("base", "current")]
    (floor,), warnings = noise.floors(sides)
    assert (floor.pairs, floor.interleaved, floor.spread, warnings) == (8, True, 0, [])
    assert floor.sweeps == 1 and math.isnan(floor.between_sweeps)


def test_rounds_of_separate_sweeps_are_paired_with_the_next_and_sweeps_lie_apart() -> None:
    slow = like_launches(13, 1, sweep_id="tuesday")
    for entry in slow.launches:
        for rank in entry.ranks:
            rank.forward_backward_s[:] = [2 * step_s for step_s in rank.forward_backward_s]
    (floor,), _ = noise.floors([like_launches(13, 0, sweep_id="monday"), slow])
    assert (floor.pairs, floor.interleaved, floor.sweeps) == (12, False, 2)
    assert floor.spread < 3 * SPREAD
    assert floor.between_sweeps == pytest.approx(1, abs=0.1)


def test_cells_with_too_few_launches_are_named_and_other_code_is_a_warning() -> None:
    other = like_launches(12, 3, sweep_id="tuesday")
    other.environment["git"] = {"commit": "another", "dirty": False}
    few = cell(stage=1, launches=launches([0.01] * 4))
    (floor,), warnings = noise.floors([like_launches(12, 2), other, few, bare("failed", "boom", stage=2)])
    assert floor.pairs == 12
    assert warnings[0] == f"fewer than 6 pairs of launches: {few.cell_id}"
    assert warnings[1].startswith("not the same code: commit ") and warnings[1].endswith("; commit another")
    with pytest.raises(NothingToCompare, match="no configuration has 6 pairs of launches; valid: two sweeps of"):
        noise.floors([few])


def test_code_is_identified_by_its_files_not_by_its_commit() -> None:
    def warned(*sources: Source) -> list[str]:
        sides = [like_launches(12, 0, sweep_id=str(at)) for at in range(len(sources))]
        for side, source in zip(sides, sources, strict=True):
            side.source = source
        return noise.floors(sides)[1]

    plain, changed = Source("a" * 64, commit="c" * 40), Source("b" * 64, commit="c" * 40, patch="+")
    wording = f"commit {'c' * 10} with changes, files {'b' * 10}; commit {'c' * 10}, files {'a' * 10}"
    assert warned(plain, changed) == [f"not the same code: {wording}"]
    assert warned(plain, plain, Source("a" * 64, commit="d" * 40)) == [], "only what does not measure was changed"


def test_the_command_prints_a_table_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_all([like_launches(20, 0), like_launches(20, 1)], tmp_path / "sweep")
    for name in ("noise.json", "noise.csv"):
        assert main(["noise", str(folder), "--out", str(tmp_path / "kept" / name)]) == 0
    assert "20" in capsys.readouterr().out
    document = json.loads((tmp_path / "kept/noise.json").read_text())
    (kept,) = document["cells"]
    assert (document["level"], document["power"], len(kept["logs"])) == (0.95, 0.8, 20)
    with (tmp_path / "kept/noise.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["detects_with_20"]) == kept["detects"]["20"]
    assert int(row["launches_for_3_percent"]) == kept["needs"]["0.03"]
    assert main(["noise", str(folder), "--out", "noise.txt"]) == 2
    assert "valid: a name that ends in .json or .csv" in capsys.readouterr().err
