"""Collectives by size: bandwidths, the line and where it does not hold, what is rejected, and how it is reported."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.advice.alpha_beta import Fit, bus_factor, fit_line, fits, metrics
from analysis.report.model.content import Content
from analysis.report.terminal import print_summary
from bench.checks import ConfigError
from bench.job import CollectivesJob
from bench.measure.communication.sizes import ENOUGH_BYTES, KINDS, LEAST_ITERATIONS, collective_options, iterations
from bench.measure.verdicts import verdicts
from bench.plan.cell import Cell
from bench.plan.jobs import Jobs
from bench.plan.resolve import plan
from results.launches import CollectiveTimes, Launch
from results.read import load
from results.record import NO_ENGINE, Record
from results.settings import Config
from tests.conftest import CPU_ONLY, group
from tests.fakes import cell, sweep, write_report

SIZES = [4**power for power in range(5, 13)]
ALPHA_S, S_PER_BYTE = 2e-4, 1e-9


def on_the_line(size: int) -> float:
    return ALPHA_S + size * S_PER_BYTE


def record(time_s: Callable[[int], float] = on_the_line, launches: int = 6, kind: str = "all_reduce") -> Record:
    """A cell of four ranks whose iterations take ``time_s``, give or take 2 %; every launch has its own 1 %."""
    draw = random.Random(0)
    made = cell(gpus=4, engine={"name": NO_ENGINE}, workload=group("workload", "collectives"))
    made.model = made.parity = None
    made.memory, made.launches, made.cell_id = [], [], f"collectives-{kind}"
    for round_ in range(launches):
        own = 1 + draw.uniform(-0.01, 0.01)
        times = [
            CollectiveTimes(kind, size, [time_s(size) * own * (1 + draw.uniform(-0.02, 0.02)) for _ in range(21)])
            for size in SIZES
        ]
        made.launches.append(Launch(round_, "2026-03-01T09:31:00+00:00", {}, [], collective_times=times))
    return made


def fit(time_s: Callable[[int], float] = on_the_line, launches: int = 6) -> Fit:
    return fits(record(time_s, launches))[0]


@pytest.mark.parametrize(
    ("kind", "factor"),
    [("all_reduce", 1.5), ("reduce_scatter", 0.75), ("all_gather", 0.75), ("all_to_all", 0.75), ("broadcast", 1.0)],
)
def test_bus_bandwidth_is_what_nccl_tests_define(kind: str, factor: float) -> None:
    assert bus_factor(kind, 4) == pytest.approx(factor)
    point = fits(record(kind=kind))[0].points[-1]
    assert point.algorithm_bandwidth == pytest.approx(point.size_bytes / point.time_s.value)
    assert point.bus_bandwidth == pytest.approx(factor * point.algorithm_bandwidth)


def test_a_line_without_noise_is_found_exactly() -> None:
    line = fit_line(SIZES, [on_the_line(size) for size in SIZES])
    assert (line.alpha_s, line.s_per_byte) == (pytest.approx(ALPHA_S), pytest.approx(S_PER_BYTE))


def test_intervals_over_launches_hold_the_truth() -> None:
    estimate = fit()
    assert estimate.alpha_s.low <= ALPHA_S <= estimate.alpha_s.high
    assert estimate.bandwidth.low <= 1 / S_PER_BYTE <= estimate.bandwidth.high
    assert estimate.alpha_s.high - estimate.alpha_s.low < 0.05 * ALPHA_S
    assert estimate.bus == pytest.approx(1.5 / S_PER_BYTE, rel=0.02)
    assert estimate.alpha_s.launches == 6 and fit(launches=1).alpha_s.level == 0


def test_where_all_sizes_are_on_the_line_none_is_named() -> None:
    assert fit().where_off() == "none"


def test_a_size_that_takes_another_protocol_is_named_with_how_much_longer_it_took() -> None:
    switch = SIZES[3]
    estimate = fit(lambda size: on_the_line(size) * (1.6 if size == switch else 1))
    off = [point.size_bytes for point in estimate.points if point.is_off]
    assert switch in off and len(off) <= 2
    assert "64.0 KiB (+4" in estimate.where_off() or "64.0 KiB (+5" in estimate.where_off()
    assert estimate.bandwidth.value == pytest.approx(1 / S_PER_BYTE, rel=0.2)


def test_a_size_that_spreads_as_far_as_it_is_off_is_not_named() -> None:
    made = record()
    draw = random.Random(1)
    for launch in made.launches:
        times = launch.collective_times[3].times_s
        times[:] = [time * draw.uniform(0.6, 1.6) for time in times]
    assert fits(made)[0].where_off() == "none"


def test_times_that_do_not_grow_with_size_have_no_fit() -> None:
    falling = fit(lambda size: 1e-3 / (1 + size * 1e-8))
    assert falling.line is None and falling.alpha_s.launches == falling.bandwidth.launches == 0
    assert falling.where_off() == "no fit: time does not grow with size"
    assert not any(point.is_off for point in falling.points) and falling.points[-1].bus_bandwidth > 0


def test_two_sizes_have_no_fit() -> None:
    made = record()
    for one in made.launches:
        one.collective_times[:] = one.collective_times[:2]
    (two,) = fits(made)
    assert two.line is None and two.where_off() == "no fit: 2 sizes, a line needs 3"
    assert metrics(made) == {}


def test_the_tracker_gets_alpha_and_both_bandwidths() -> None:
    metric_values = metrics(record())
    assert metric_values["all_reduce_alpha_us"] == pytest.approx(200, rel=0.05)
    assert metric_values["all_reduce_beta_gb_per_s"] == pytest.approx(1.0, rel=0.05)
    assert metric_values["all_reduce_bus_gb_per_s"] == pytest.approx(1.5, rel=0.05)


def test_large_sizes_take_fewer_iterations_but_no_fewer_than_the_least() -> None:
    assert iterations(1024, steps=20) == 20
    assert iterations(ENOUGH_BYTES // 8, steps=20) == 8
    assert iterations(ENOUGH_BYTES, steps=20) == LEAST_ITERATIONS
    assert iterations(ENOUGH_BYTES, steps=2) == 2


def test_a_size_is_rounded_up_to_as_many_elements_for_each_rank() -> None:
    options = group("workload", "collectives")
    assert collective_options(options).size_bytes(1024, ranks=4) == 1024
    assert collective_options(options).size_bytes(1000, ranks=3) == 1008
    assert collective_options(options | {"dtype": "bfloat16"}).size_bytes(1, ranks=3) == 6


def planned(make_config: Callable[..., Config], **settings: Any) -> Cell:
    arguments = {"engine": "native", "workload": "collectives", "batch_size": 64, "gpus": 2} | settings
    return plan([make_config(**arguments)], CPU_ONLY, cores=2)[0]


def test_a_cell_of_collectives_has_no_engine_in_its_name(make_config: Callable[..., Config]) -> None:
    planned_cell = planned(make_config)
    assert planned_cell.status is None, planned_cell.reason
    assert planned_cell.id.startswith("collectives-n2-gloo-") and isinstance(
        Jobs(planned_cell, Path()).timed(), CollectivesJob
    )
    assert planned(make_config, steps=3).id != planned_cell.id


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gpus": 1}, "workload=collectives has no gpus=1: one rank sends nothing"),
        ({"engine": "torch"}, "workload=collectives has no engine=torch: no engine runs"),
        ({"stage": 3}, "workload=collectives has no stage=3: nothing is trained. Valid: 0"),
        ({"bucket_mb": 1.0}, "workload=collectives has no bucket_mb=1.0: nothing is trained. Valid: null"),
        ({"overlap": False}, "workload=collectives has no overlap=false"),
        ({"precision": "bf16"}, "workload=collectives has no precision=bf16"),
        ({"batch_size": 8}, "workload=collectives has no batch_size=8"),
        ({"measure": {"batch_pool": 3}}, "workload=collectives has no measure.batch_pool=3"),
    ],
)
def test_what_belongs_to_training_is_rejected_by_its_name(
    make_config: Callable[..., Config], settings: dict[str, Any], message: str
) -> None:
    rejected = planned(make_config, **settings)
    assert rejected.status == "unsupported" and message in rejected.reason


def test_asking_for_less_than_training_would_check_is_not_rejected(make_config: Callable[..., Config]) -> None:
    assert planned(make_config, measure={"parity_steps": 0, "memory": False, "collectives": False}).status is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["allreduce"]}, "workload.kinds=.* is not valid; valid: a list of all_reduce, "),
        ({"kinds": []}, "workload.kinds="),
        ({"sizes": [0]}, "workload.sizes=.* is not valid; valid: a list of whole numbers of bytes"),
        ({"sizes": "1MiB"}, "workload.sizes=1MiB is not valid"),
        ({"dtype": "int8"}, "workload.dtype=int8 is not valid; valid: float32, bfloat16, float16"),
    ],
)
def test_an_options_value_is_rejected_with_what_is_valid(
    make_config: Callable[..., Config], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(make_config, workload=group("workload", "collectives") | options)


def test_the_configuration_asks_for_every_kind() -> None:
    assert collective_options(group("workload", "collectives")).kinds == list(KINDS)


def test_a_report_of_collectives_alone_says_what_was_fitted_and_nothing_of_training(tmp_path: Path) -> None:
    made = record()
    assert "parity_unchecked" not in verdicts(_with_settings(made), oversubscribed=False)
    paths = write_report([made], tmp_path)
    for text in (paths.markdown.read_text(), paths.html.read_text()):
        assert "Collectives by size" in text and "all-reduce" in text and "4 ranks · gloo" in text
        assert (
            "Configurations</h2>" not in text and "## Configurations" not in text and "nothing to compare" not in text
        )
        assert "engine=-" not in text and "workload=collectives" in text
    assert "1.50" in paths.markdown.read_text()
    assert len((tmp_path / "collectives.csv").read_text().splitlines()) == 1 + len(SIZES)
    assert paths.figures == [tmp_path / "figures" / "collectives-01.png"]


def _with_settings(made: Record) -> Record:
    made.config |= {"straggler": {"rank": None}, "network": {"kind": "none"}, "data_skew": "none"}
    return made


def test_a_sweep_of_both_reports_both(tmp_path: Path) -> None:
    records = [*sweep(), record()]
    paths = write_report(records, tmp_path, drawn=False)
    text = paths.markdown.read_text()
    assert "## Collectives by size" in text and "## Answer" in text
    cells = text.partition("## Configurations")[2].partition("##")[0]
    assert "collectives" not in cells
    out = io.StringIO()
    print_summary(Content(records), paths, console=Console(file=out, width=120))
    assert "all-reduce" in out.getvalue() and "not on the line" in out.getvalue()


def test_a_record_of_collectives_survives_being_written_and_read(tmp_path: Path) -> None:
    made = record(launches=2)
    made.write(tmp_path / "one.json")
    assert Record.read(tmp_path / "one.json") == made
    made.launches[1].collective_times.pop()
    made.write(tmp_path / "two.json")
    contents = load([tmp_path])
    assert len(contents.records) == 1 and "not the same ones" in contents.warnings[0]
