"""Step time by bucket size: the line through known times, its knee, when there is none, and the tied sizes."""

from __future__ import annotations

from math import nan, sqrt
from pathlib import Path
from random import Random

import numpy as np
import pytest

from analysis.advice.bucket_size import Curve, Line, curves, fit, gradient_bytes, non_negative, packed
from analysis.report.sections.bucket_size import advice
from analysis.table.frame import frame
from results.model import Parameter
from results.record import Record
from tests.fakes import cell, cnn_model, launch, write_report

MIB = 2**20
SIZES = (0.25, 0.5, 1.0, 2.0, 4.0)
LAYERS = 16
"""Of a quarter MiB each, so that every size cuts 4 MiB in equal buckets."""


def step_s(bucket_mb: float, alpha_s: float, beta_s_per_mib: float) -> float:
    return 0.050 + alpha_s * 4 / bucket_mb + beta_s_per_mib * bucket_mb


def swept(
    alpha_s: float,
    beta_s_per_mib: float,
    sizes: tuple[float, ...] = SIZES,
    *,
    launches: int = 6,
    noise: float = 0.0,
    overlap: bool = True,
    seed: int = 0,
) -> list[Record]:
    """Cells that differ in bucket size, with a step as the model has it, each round at a pace of its own."""
    generator = Random(seed)
    pace = [generator.lognormvariate(0, 0.1) for _ in range(launches)]
    records = []
    for size in sizes:
        step = step_s(size, alpha_s, beta_s_per_mib)
        times = [step * slow * generator.lognormvariate(0, noise) for slow in pace]
        record = cell(0, 2, [launch(at, [[time] * 2] * 2) for at, time in enumerate(times)], bucket_mb=size)
        record.model = cnn_model(parameters=[Parameter(f"{at}.weight", [256, 256], True, at) for at in range(LAYERS)])
        record.resolved["engine"] = {"overlap": overlap, "reduce_dtype": "float32"}
        records.append(record)
    return records


def only(records: list[Record]) -> Curve:
    (curve,) = curves(records, frame(records))
    return curve


def line(curve: Curve) -> Line:
    assert curve.line is not None
    return curve.line


def test_parameters_fill_buckets_from_the_last_and_one_that_is_too_large_has_its_own() -> None:
    assert packed([4, 3, 9, 1, 1], 8) == [7, 9, 2]
    assert packed([4, 4], 8) == [8]
    model = cnn_model(
        parameters=[Parameter("a", [2], True, 0), Parameter("b", [3], False, 0), Parameter("c", [5], True, 0)]
    )
    record = cell(0, 2, model=model)
    assert gradient_bytes(record) == [20, 8], "the last first, frozen ones not at all"
    record.resolved["engine"] = {"reduce_dtype": "bfloat16"}
    assert gradient_bytes(record) == [10, 4]


def test_a_step_made_of_the_model_gives_its_numbers_back() -> None:
    curve = only(swept(0.0004, 0.002))
    times = line(curve)
    scale = curve.points[0].step.value / step_s(0.25, 0.0004, 0.002)  # the median round's pace
    assert times.start_s == pytest.approx(0.050 * scale)
    assert times.alpha_s == pytest.approx(0.0004 * scale)
    assert times.beta_s_per_byte * MIB == pytest.approx(0.002 * scale)
    assert times.r2 == pytest.approx(1)
    assert curve.knee is not None
    assert curve.knee.value / MIB == pytest.approx(sqrt(0.0004 * 4 / 0.002))
    assert (curve.knee.low, curve.knee.high) == pytest.approx((curve.knee.value,) * 2), "all rounds have the same"
    assert [point.buckets for point in curve.points] == [16, 8, 4, 2, 1]


def test_a_last_bucket_that_is_a_quarter_full_moves_no_knee_of_the_same_steps() -> None:
    """The same steps: what is exposed is as long, so a byte of it takes four times as long."""
    records = swept(0.0004, 0.002)
    for size, record in zip(SIZES, records, strict=True):
        record.resolved["engine"]["last_bucket_bytes"] = int(size * MIB / 4)
    curve = only(records)
    assert [point.last_bytes for point in curve.points] == [int(size * MIB / 4) for size in SIZES]
    assert line(curve).beta_s_per_byte == pytest.approx(4 * line(only(swept(0.0004, 0.002))).beta_s_per_byte)
    assert curve.knee is not None
    assert curve.knee.value / MIB == pytest.approx(sqrt(0.0004 * 4 / 0.002))


def test_the_engines_own_number_of_buckets_is_used() -> None:
    records = swept(0.0004, 0.002)
    for record in records:
        record.resolved["engine"]["buckets"] = 3
    assert {point.buckets for point in only(records).points} == {3}


@pytest.mark.exhaustive
def test_an_interval_of_the_knee_holds_the_truth_about_as_often_as_it_says() -> None:
    """Six launches: 95 %. Sixty trials leave at least 49 (four standard errors)."""
    truth = sqrt(0.001 * 4 / 0.006) * MIB
    cover_count = drawn = 0
    for seed in range(60):
        knee = only(swept(0.001, 0.006, noise=0.01, seed=seed)).knee
        if knee is not None:
            drawn += 1
            cover_count += knee.low <= truth <= knee.high
    assert drawn == 60
    assert cover_count >= 49


def test_without_overlap_only_the_number_of_buckets_counts() -> None:
    curve = only(swept(0.002, 0.0, overlap=False))
    assert line(curve).beta_s_per_byte == 0
    assert curve.knee is None
    assert "larger ones are never slower" in curve.why_no_knee


@pytest.mark.parametrize(
    ("alpha_s", "beta_s_per_mib", "reason"),
    [
        (0.002, 0.0, "larger ones are never slower"),
        (0.0, 0.010, "smaller ones are never slower"),
        (0.00001, 0.010, "below the smallest size"),
        (0.020, 0.004, "beyond the largest size"),
    ],
)
def test_no_knee_is_shown_outside_of_what_was_measured(alpha_s: float, beta_s_per_mib: float, reason: str) -> None:
    curve = only(swept(alpha_s, beta_s_per_mib))
    assert line(curve).r2 > 0.99
    assert curve.knee is None
    assert reason in curve.why_no_knee


def test_no_knee_is_shown_where_the_line_fails() -> None:
    records = swept(0.0, 0.0)
    for record, slow in zip(records, (1, 2, 1, 2, 1), strict=True):
        record.launches = [launch(at, [[0.05 * slow] * 2] * 2) for at in range(6)]
    curve = only(records)
    assert line(curve).r2 < 0.5
    assert curve.knee is None
    assert "too little" in curve.why_no_knee


def test_no_knee_is_shown_where_the_launches_do_not_place_it() -> None:
    ten_curves = [only(swept(0.0001, 0.0002, noise=0.3, seed=seed)) for seed in range(10)]
    assert any("place it nowhere" in curve.why_no_knee for curve in ten_curves)


def test_three_sizes_make_a_curve_that_no_line_of_three_numbers_is_tested_on() -> None:
    curve = only(swept(0.0004, 0.002, (0.25, 1.0, 4.0)))
    assert curve.line is None
    assert "3 different ways" in curve.why_no_line
    alike = only(swept(0.0004, 0.002, (0.25, 4.0, 8.0, 16.0, 32.0)))
    assert alike.line is None, "sizes beyond the model are one setting"
    two = swept(0.0004, 0.002, (0.25, 1.0))
    assert curves(two, frame(two)) == []


def test_cells_that_differ_in_more_than_the_bucket_are_curves_of_their_own() -> None:
    records = [*swept(0.0004, 0.002), *swept(0.0004, 0.002, overlap=False)]
    for record, overlap in zip(records, [True] * 5 + [False] * 5, strict=True):
        record.config["overlap"] = overlap
    assert [curve.title for curve in curves(records, frame(records))] == ["overlap off", "overlap on"]
    for record in records[:5]:
        record.resolved["simulated"] = True
    assert [curve.title for curve in curves(records, frame(records))] == ["overlap off"]


def test_non_negative_least_squares_finds_the_best_of_all_that_are_not_negative() -> None:
    generator = np.random.default_rng(0)
    for _ in range(40):
        columns = generator.normal(size=(6, 3))
        solution = non_negative(columns)
        gradient = columns.T @ (columns @ solution - 1)
        assert (solution >= 0).all()
        assert (gradient >= -1e-9).all(), "no number could be raised to gain"
        assert gradient @ solution == pytest.approx(0, abs=1e-9), "nor lowered"


def test_times_that_do_not_differ_have_no_r2() -> None:
    points = only(swept(0.0004, 0.002)).points
    assert not fit([0.05] * 5, points, overlaps=True).r2 >= 0
    assert nan != fit([0.05] * 5, points, overlaps=True).r2


def test_the_advice_is_all_sizes_that_do_not_differ_from_the_best() -> None:
    (sentence,) = advice([only(swept(0.0004, 0.002, noise=0.002))])
    assert "use 1 MiB: every other size is slower, at 95 % (6 launches)" in sentence
    (sentence,) = advice([only(swept(0.002, 0.0, noise=0.04))])
    assert "use any of 2, 4 MiB" in sentence
    (sentence,) = advice([only(swept(0.0, 0.0, noise=0.05))])
    assert sentence.startswith("any of these sizes")
    (sentence,) = advice([only(swept(0.0004, 0.002, launches=1))])
    assert "one launch is too few to compare it with others" in sentence


def test_the_report_has_the_curve_its_table_and_its_advice(tmp_path: Path) -> None:
    paths = write_report(swept(0.0004, 0.002, noise=0.002), tmp_path)
    text = paths.markdown.read_text(encoding="utf-8")
    assert "## Bucket size" in text and "Knee at " in text
    page = paths.html.read_text(encoding="utf-8")
    assert ">knee</text>" in page and "tied with the fastest" in page
    assert any(path.name == "buckets-01.png" for path in paths.figures)
    rows = [entry for entry in text.splitlines() if entry.endswith(("| best |", "| slower |", "| tied |"))]
    assert [entry.split(" | ")[-1] for entry in rows] == ["slower |", "slower |", "best |", "slower |", "slower |"]


def test_overlap_is_what_was_asked_for_where_the_engine_did_not_say() -> None:
    records = swept(0.0004, 0.002, overlap=False)
    for record in records:
        record.config["overlap"] = False
        record.resolved["engine"] = {}
    by_default = swept(0.0004, 0.002)
    for record in by_default:
        record.resolved["engine"] = {}
    assert line(only(records)).beta_s_per_byte == 0
    assert line(only(by_default)).beta_s_per_byte > 0
